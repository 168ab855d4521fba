"""The files in deploy/ are what their formats allow, and name only settings that the program has.

Nothing here is deployed: linters and published schemas read the files, and the program is asked what it knows. What
KEDA's own objects may hold is written down below, after its documents, since no package has their schema.
"""

from __future__ import annotations


import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.suffix in {"", ".yaml", ".service"} and path.is_file())
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
# What `systemd-analyze security` says of a unit, from 0 (locked up) to 100.
EXPOSURE_MAX = 35


def told(*command: str | Path) -> None:
    """Runs a linter, and shows what it says where it objects."""
    beside = Path(sys.executable).parent / str(command[0])
    program = beside if beside.exists() else command[0]
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def objects(name: str) -> list[dict]:
    return [item for item in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()) if item]


def settings() -> set[tuple[str, str]]:
    """Each command's variables: a test in Rust holds the table to the program."""
    rows = re.findall(r"^\| `([a-z ]+)` \| `--([a-z0-9-]+)` \|", (ROOT / "docs/SETTINGS.md").read_text(), re.MULTILINE)
    return {(command, f"KINORA_{flag.upper().replace('-', '_')}") for command, flag in rows}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_only_settings_that_there_are_get_set(path: Path) -> None:
    known = {variable for command, variable in settings() if command in {"serve", "worker"}}
    assert len(known) > 30
    assert set(re.findall(r"\bKINORA_[A-Z0-9_]+", path.read_text())) <= known


def test_the_linter_of_dockerfiles_has_nothing_to_say() -> None:
    told("hadolint", DEPLOY / "Dockerfile")


def test_the_dockerfile_builds_what_is_there_with_the_compilers_that_are_used() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    compiler = re.search(r'channel = "(\d+\.\d+)', (ROOT / "rust-toolchain.toml").read_text())[1]
    assert re.findall(r"^FROM rust:([\d.]+)-", text, re.MULTILINE) == [compiler]
    cuda = re.search(r"nvidia-cuda-nvcc==(\d+\.\d+)", (ROOT / "scripts/cuda-requirements.txt").read_text())[1]
    images = re.findall(r"^FROM nvidia/cuda:(\d+\.\d+)\.\d+-cudnn-(devel|runtime)-(\S+)", text, re.MULTILINE)
    assert {(version, kind) for version, kind, _ in images} == {(cuda, "devel"), (cuda, "runtime")}
    assert len({system for *_, system in images}) == 1, "what one builds, the other must be able to load"
    assert re.findall(r" AS (\w+)$", text, re.MULTILINE)[-1] == "cpu", "what is built when no target is named"
    for name in re.findall(r"/source/(?!target)(\S+)", text):
        assert (ROOT / name).is_file(), name


def test_the_compose_file_is_as_the_specification_of_compose_wants_it() -> None:
    told("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_the_manifests_are_as_kubernetes_wants_them() -> None:
    own = [item for path in (DEPLOY / "kubernetes").glob("*.yaml") for item in objects(path.name)]
    assert {item["apiVersion"] for item in own} == {"v1", "apps/v1", "keda.sh/v1alpha1"}
    told("kubernetes-validate", "--strict", "--no-warn", *sorted((DEPLOY / "kubernetes").glob("*.yaml")))
    for item in (item for item in own if item["kind"] == "Deployment"):
        labels = item["spec"]["template"]["metadata"]["labels"]
        assert item["spec"]["selector"]["matchLabels"].items() <= labels.items(), item["metadata"]["name"]


def closed(required: list[str], **properties: dict) -> dict:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
NUMBER_IN_TEXT = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}
NAMED = closed(["name"], name=TEXT)
# https://keda.sh/docs: the ScaledObject, and the scaler `postgresql`, whose metadata are texts all.
SCALER = closed(
    ["type", "metadata", "authenticationRef"],
    type={"const": "postgresql"},
    authenticationRef=NAMED,
    metadata=closed(
        ["query", "targetQueryValue"],
        query=TEXT,
        targetQueryValue=NUMBER_IN_TEXT,
        activationTargetQueryValue=NUMBER_IN_TEXT,
    ),
)
SECRET = closed(["parameter", "name", "key"], parameter={"const": "connection"}, name=TEXT, key=TEXT)
KEDA = {
    "TriggerAuthentication": closed(["secretTargetRef"], secretTargetRef={"type": "array", "items": SECRET}),
    "ScaledObject": closed(
        ["scaleTargetRef", "triggers"],
        scaleTargetRef=NAMED,
        pollingInterval=COUNT,
        cooldownPeriod=COUNT,
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        triggers={"type": "array", "minItems": 1, "items": SCALER},
    ),
}


def test_the_scalers_are_as_keda_wants_them_and_point_at_what_is_there() -> None:
    own = [item for path in (DEPLOY / "kubernetes").glob("*.yaml") for item in objects(path.name)]
    found = [item for item in own if item["apiVersion"].startswith("keda.sh/")]
    assert {item["kind"] for item in found} == set(KEDA)
    for item in found:
        body = closed(["apiVersion", "kind", "metadata", "spec"], metadata=NAMED, spec=KEDA[item["kind"]])
        body["properties"] |= {"apiVersion": {"const": "keda.sh/v1alpha1"}, "kind": TEXT}
        jsonschema.validate(item, body)
    named = {(item["kind"], item["metadata"]["name"]) for item in own}
    for scaled in (item["spec"] for item in found if item["kind"] == "ScaledObject"):
        assert ("Deployment", scaled["scaleTargetRef"]["name"]) in named
        assert ("TriggerAuthentication", scaled["triggers"][0]["authenticationRef"]["name"]) in named


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_unit_and_finds_little_to_attack(unit: Path, tmp_path: Path) -> None:
    copy, placed = tmp_path / unit.name, "/usr/local/bin/kinora"
    text = unit.read_text()
    assert placed in text
    # It insists on a program that is there; and what it only warns of is on a line of its own.
    copy.write_text(text.replace(placed, shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and unit.name not in done.stderr, done.stderr
    told("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}", copy)
