"""Clips a minute, and transactions for each, with 1, 2, 4 and 8 workers on PostgreSQL and S3.

Made with the engine `pattern`, whose frames cost next to nothing: what remains is the queue, the encoder and the bucket.
Each number of workers gets a database of its own with the same requests waiting, and one process that runs that many.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.client import Client, raw_base64  # noqa: E402
from support.pictures import drawn  # noqa: E402
from support.server import binary, clean_environment  # noqa: E402
from torture.process import await_port, free_port  # noqa: E402

BUCKET, KEY_ID, SECRET = "clips", "bench-key", "bench-secret"
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
LIMIT_S = 600


def psql(url: str, sql: str) -> str:
    command = ["psql", "-qtA", "-v", "ON_ERROR_STOP=1", url, "-c", sql]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def started(folder: Path, port: int, command: list) -> subprocess.Popen:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(list(map(str, command)), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    if port and not await_port(port, process):
        raise RuntimeError((folder / "log").read_text()[-1000:])
    return process


environment: dict[str, str] = {}


def measure(workers: int, jobs: int, s3_port: int, folder: Path) -> tuple[float, float]:
    """Clips a minute, and transactions for each clip."""
    server = os.environ["KINORA_TEST_POSTGRES"]
    database = f"workers_{os.getpid()}_{workers}"
    psql(f"{server}/postgres", f"CREATE DATABASE {database}")
    url = f"{server}/{database}"
    environment.clear()
    environment.update(clean_environment())
    environment.update(
        KINORA_DATABASE_URL=url,
        KINORA_ARTIFACTS=f"s3://{BUCKET}/{database}",
        KINORA_S3_ENDPOINT=f"http://127.0.0.1:{s3_port}",
        KINORA_S3_REGION="us-east-1",
        KINORA_S3_ACCESS_KEY_ID=KEY_ID,
        KINORA_S3_SECRET_ACCESS_KEY=SECRET,
        KINORA_S3_PATH_STYLE="true",
        KINORA_ENGINE="pattern",
    )
    made = subprocess.run([binary(), "keys", "create", "--org", "bench"], env=environment, capture_output=True, text=True, check=True)
    port = free_port()
    serving = started(folder, port, [binary(), "serve", "--no-worker", "--listen", f"127.0.0.1:{port}", "--data-dir", folder / database])
    client = Client(f"http://127.0.0.1:{port}", made.stdout.strip())
    picture = raw_base64(drawn())
    for number in range(jobs):
        client.accepted({"image": picture, "prompt": f"request {number}"})
    serving.terminate()
    serving.wait(30)
    commits = f"SELECT xact_commit FROM pg_stat_database WHERE datname = '{database}'"
    before, asked = int(psql(url, commits)), 2
    working = started(folder, 0, [binary(), "worker", "--workers", workers])
    deadline = time.monotonic() + LIMIT_S
    while psql(url, "SELECT count(*) FROM jobs WHERE finished_at_ms IS NULL") != "0":
        if time.monotonic() > deadline:
            raise TimeoutError(f"{jobs} clips take longer than {LIMIT_S} s")
        asked += 1
        time.sleep(0.5)
    working.terminate()
    working.wait(60)
    if psql(url, "SELECT count(*) FROM jobs WHERE status <> 'success'") != "0":
        raise RuntimeError("not every request succeeded")
    took_s = float(psql(url, "SELECT (max(finished_at_ms) - min(started_at_ms)) / 1000.0 FROM jobs"))
    transactions = int(psql(url, commits)) - before - asked
    return jobs / took_s * 60, transactions / jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kinora-workers-") as name:
        folder, port = Path(name), free_port()
        (folder / "s3" / BUCKET).mkdir(parents=True)
        command = [os.environ["KINORA_TEST_S3S_FS"], "--access-key", KEY_ID, "--secret-key", SECRET]
        s3 = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port), str(folder / "s3")], **QUIET)
        await_port(port, s3)
        try:
            print("| workers | clips a minute | transactions a clip |\n|---|---|---|")
            for workers in (1, 2, 4, 8):
                rate, transactions = measure(workers, options.jobs, port, folder)
                print(f"| {workers} | {rate:.0f} | {transactions:.1f} |", flush=True)
        finally:
            s3.kill()
            s3.wait()


if __name__ == "__main__":
    main()
