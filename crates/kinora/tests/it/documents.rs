//! Documents say what the code does: tables made from it are fresh, links lead somewhere, modules import downwards.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn assert_holds(document: &str, table: &str) {
    assert!(read(document).contains(table), "{document} must contain:\n\n{table}");
}

#[test]
fn the_table_of_settings_is_fresh() {
    fn rows(command: &clap::Command, path: &str, table: &mut String) {
        for argument in kinora::settings::settings(command) {
            let default: Vec<_> =
                argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            let default = if default.is_empty() || default[0].is_empty() {
                "–".into()
            } else {
                format!("`{}`", default.join(","))
            };
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            writeln!(table, "| `{path}` | `--{}` | {default} | {help} |", argument.get_long().unwrap())
                .unwrap();
        }
        for sub in command.get_subcommands() {
            rows(sub, format!("{path} {}", sub.get_name()).trim(), table);
        }
    }
    let mut table = String::from("| command | flag | default | meaning |\n|---|---|---|---|\n");
    rows(&kinora::cli::command(), "", &mut table);
    assert_holds("docs/SETTINGS.md", &table);
}

#[test]
fn the_table_of_operations_is_fresh() {
    let document = serde_json::to_value(kinora::api::document()).unwrap();
    let mut table = String::from("| operation | request | answers |\n|---|---|---|\n");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let answers: Vec<&str> =
                operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
            let path = path.replace(kinora::api::BASES[0], "{base}");
            let summary = operation["summary"].as_str().unwrap().trim_end_matches('.');
            writeln!(table, "| {summary} | `{} {path}` | {} |", method.to_uppercase(), answers.join(", "))
                .unwrap();
        }
    }
    assert_holds("docs/API.md", &table);
}

#[test]
fn every_error_code_is_documented() {
    let source = read("crates/kinora/src/api/error.rs");
    let codes: BTreeSet<&str> =
        source.split("(StatusCode::").skip(1).filter_map(|rest| rest.split('"').nth(1)).collect();
    assert!(codes.len() > 15, "{codes:?}");
    let document = read("docs/API.md");
    for code in codes {
        assert!(document.contains(&format!("| `{code}` |")), "docs/API.md must explain `{code}`");
    }
}

#[test]
fn relative_links_lead_to_files() {
    for path in markdown_files(&root()) {
        let text = std::fs::read_to_string(&path).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(path.parent().unwrap().join(target).exists(), "{}: {target}", path.display());
        }
    }
}

/// What is deployed by files is set by variables that exist.
#[test]
fn deployment_files_name_variables_that_exist() {
    fn variables(command: &clap::Command, known: &mut BTreeSet<String>) {
        let named = command.get_arguments().filter_map(|argument| argument.get_env());
        known.extend(named.map(|name| name.to_string_lossy().into_owned()));
        command.get_subcommands().for_each(|sub| variables(sub, known));
    }
    let mut known = BTreeSet::new();
    variables(&kinora::cli::command(), &mut known);
    let mut named_count = 0;
    for path in files_below(&root().join("deploy")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        for name in words.filter(|word| word.starts_with("KINORA_") && word.len() > "KINORA_".len()) {
            assert!(known.contains(name), "{}: no setting has the variable {name}", path.display());
            named_count += 1;
        }
    }
    assert!(named_count > 20, "{named_count}");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn markdown_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            found.extend(markdown_files(&path));
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
    found
}

/// What each module may import of ours. `ARCHITECTURE.md` explains why.
const IMPORTS: [(&str, &[&str]); 26] = [
    ("allocator", &[]),
    ("clock", &[]),
    ("library", &[]),
    ("connections", &[]),
    ("observe", &[]),
    ("telemetry", &[]),
    ("settings", &[]),
    ("traces", &["clock", "keys"]),
    ("faults", &[]),
    ("fetch", &[]),
    ("capability", &[]),
    ("machine", &[]),
    ("models", &["allocator", "library", "machine"]),
    ("submission", &[]),
    ("produce", &["allocator"]),
    ("jobs", &["clock", "keys", "telemetry"]),
    ("keys", &["clock", "jobs"]),
    ("artifacts", &["keys"]),
    ("intake", &["artifacts", "capability", "clock", "fetch", "jobs", "submission"]),
    (
        "worker",
        &[
            "artifacts",
            "clock",
            "faults",
            "jobs",
            "keys",
            "models",
            "produce",
            "submission",
            "telemetry",
            "traces",
        ],
    ),
    (
        "api",
        &[
            "artifacts",
            "capability",
            "clock",
            "intake",
            "jobs",
            "keys",
            "models",
            "submission",
            "telemetry",
            "traces",
        ],
    ),
    ("sweep", &["artifacts", "jobs"]),
    ("retention", &["artifacts", "jobs", "telemetry"]),
    (
        "server",
        &[
            "api",
            "artifacts",
            "capability",
            "clock",
            "connections",
            "fetch",
            "intake",
            "jobs",
            "models",
            "retention",
            "sweep",
            "telemetry",
            "worker",
        ],
    ),
    (
        "cli",
        &[
            "allocator",
            "api",
            "artifacts",
            "clock",
            "fetch",
            "jobs",
            "keys",
            "library",
            "machine",
            "models",
            "observe",
            "produce",
            "retention",
            "server",
            "settings",
            "submission",
            "traces",
            "worker",
        ],
    ),
    ("main", &["cli"]),
];

#[test]
fn modules_import_only_what_the_table_allows_and_say_what_they_are() {
    let source = root().join("crates/kinora/src");
    for path in rust_files(&source) {
        let relative = path.strip_prefix(&source).unwrap();
        let module = relative.iter().next().unwrap().to_string_lossy().replace(".rs", "");
        let text = std::fs::read_to_string(&path).unwrap();
        if module == "lib" || relative.ends_with("tests.rs") {
            continue;
        }
        assert!(text.starts_with("//! "), "{} says nothing of itself", path.display());
        let (_, allowed) = IMPORTS
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} is not in the table"));
        let product = text.split("#[cfg(test)]").next().unwrap();
        for import in product.split("use crate::").skip(1) {
            let name = import.split([':', ';', ' ', '{']).next().unwrap();
            assert!(name == module || allowed.contains(&name), "{} may not import {name}", path.display());
        }
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The commands that the README promises are run, by a shell, in a folder of their own.
#[test]
fn the_readmes_first_command_works_as_pasted() {
    let readme = read("README.md");
    let line = readme.lines().find(|line| line.contains("-- animate ")).expect("the README shows animate");
    let arguments = line.trim().split_once(" -- ").unwrap().1.split(" #").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("examples")).unwrap();
    std::fs::copy(root().join("examples/still.jpg"), folder.path().join("examples/still.jpg")).unwrap();
    let command = format!("'{}' {arguments}", env!("CARGO_BIN_EXE_kinora"));
    let output =
        std::process::Command::new("sh").args(["-c", &command]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    assert!(folder.path().join("examples/still.mp4").exists(), "{output:?}");
}
