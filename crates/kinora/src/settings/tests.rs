use clap::{CommandFactory as _, Parser};

use super::*;

#[derive(Debug, Parser)]
struct Example {
    #[command(subcommand)]
    command: ExampleCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ExampleCommand {
    Serve {
        #[arg(long, default_value = "1")]
        workers: u32,
        #[arg(long)]
        no_worker: bool,
        #[arg(long, value_delimiter = ',')]
        allow: Vec<String>,
        #[arg(long, default_value = "here")]
        data_dir: String,
    },
    Keys {
        #[arg(long)]
        org: String,
        #[arg(long, default_value = "here")]
        data_dir: String,
    },
}

fn read(file: &str, arguments: &[&str]) -> String {
    let command = apply(Example::command(), &file.parse().unwrap()).unwrap();
    format!(
        "{:?}",
        command
            .try_get_matches_from(arguments)
            .map(|m| { <Example as clap::FromArgMatches>::from_arg_matches(&m).unwrap().command })
            .unwrap()
    )
}

fn error(file: &str) -> String {
    apply(Example::command(), &file.parse().unwrap()).unwrap_err().to_string()
}

#[test]
fn a_file_sets_defaults_and_flags_win() {
    let file =
        "data_dir = 'there'\n[serve]\nworkers = 3\nno_worker = true\nallow = ['a', 'b']\n[keys]\norg = 'o'\n";
    assert_eq!(
        read(file, &["x", "serve"]),
        r#"Serve { workers: 3, no_worker: true, allow: ["a", "b"], data_dir: "there" }"#
    );
    assert_eq!(
        read(file, &["x", "serve", "--workers", "5", "--data-dir", "d", "--allow", "c"]),
        r#"Serve { workers: 5, no_worker: true, allow: ["c"], data_dir: "d" }"#
    );
    assert_eq!(read(file, &["x", "keys"]), r#"Keys { org: "o", data_dir: "there" }"#);
}

#[test]
fn mistakes_are_named_and_the_nearest_key_is_suggested() {
    assert_eq!(
        error("data_dri = 1"),
        "the configuration file has an unknown key `data_dri`; did you mean `data_dir`?"
    );
    assert_eq!(
        error("[serve]\nworker = 1"),
        "the configuration file has an unknown key `serve.worker`; did you mean `serve.workers`?"
    );
    assert_eq!(
        error("[serv]\nworkers = 1"),
        "the configuration file has an unknown key `serv`; did you mean `serve`?"
    );
    assert_eq!(error("zzz = 1"), "the configuration file has an unknown key `zzz`");
    assert_eq!(
        error("[serve]\nno_worker = 'yes'"),
        "the configuration file's `serve.no_worker` must be a boolean (true or false)"
    );
    assert_eq!(
        error("[serve]\nworkers = [1]"),
        "the configuration file's `serve.workers` must be a string or number"
    );
}

#[test]
fn the_file_is_found_in_the_arguments() {
    let named = |arguments: &[&str]| file_named(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
    assert_eq!(named(&["x", "serve", "--config", "a.toml"]), Some("a.toml".into()));
    assert_eq!(named(&["x", "--config=b.toml", "serve"]), Some("b.toml".into()));
}

/// Every flag of the real command line has its variable, and so its place in the file.
#[test]
fn every_flag_has_an_environment_variable() {
    fn check(command: &Command, path: &str) {
        for argument in settings(command) {
            let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
            let expected = format!("KINORA_{}", argument.get_id().as_str().to_uppercase());
            assert_eq!(variable, Some(expected), "{path} --{}", argument.get_id());
        }
        for sub in command.get_subcommands() {
            check(sub, &format!("{path} {}", sub.get_name()));
        }
    }
    check(&crate::cli::command(), "kinora");
}
