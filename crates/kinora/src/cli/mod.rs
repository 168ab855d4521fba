//! The command line: one file for each command.

mod animate;
mod bench;
mod collector;
mod doctor;
mod frames_out;
mod gc;
mod keys;
mod migrate;
mod models;
mod progress;
mod serve;
mod storage;
mod worker;

use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::allocator::bound_arenas;
use crate::settings;

/// What scripts can tell apart. 2 is clap's own, for wrong usage.
const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
/// The input was refused: a picture, a URL or a field.
const EXIT_BAD_INPUT: u8 = 3;
/// As a shell reports a process that was interrupted (128 + SIGINT).
const EXIT_INTERRUPTED: u8 = 130;

/// Turns a still picture and a prompt into a video on your own machine.
///
/// Start with `kinora animate photo.jpg --prompt "slow push in"`, or with `kinora serve` for the API.
///
/// Every flag can also be set by the environment variable named beside it, or in a TOML file given by --config, with
/// one table for each command: `[serve]` and below it `listen = "127.0.0.1:8080"`. A flag wins over the variable, and
/// the variable over the file.
#[derive(Debug, Parser)]
#[command(name = "kinora", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Read settings from this TOML file.
    #[arg(long, global = true, value_name = "FILE", env = "KINORA_CONFIG")]
    config: Option<std::path::PathBuf>,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 input refused, 130 interrupted.";

#[derive(Debug, Subcommand)]
enum Command {
    Animate(Box<animate::Animate>),
    Serve(Box<serve::Serve>),
    Worker(Box<worker::WorkerCommand>),
    Migrate(migrate::Migrate),
    Gc(Box<gc::Gc>),
    #[command(subcommand)]
    Keys(keys::Keys),
    #[command(subcommand)]
    Models(models::Models),
    Doctor(doctor::Doctor),
    #[command(subcommand)]
    Bench(bench::Bench),
}

/// Where the data lies.
#[derive(Debug, Args)]
struct DataDir {
    /// Folder for database, pictures and clips.
    #[arg(long, value_name = "DIR", env = "KINORA_DATA_DIR", default_value = "kinora-data")]
    data_dir: std::path::PathBuf,
}

/// Why a command failed, and what its exit code is.
#[derive(Debug)]
enum Failure {
    /// The input is at fault.
    BadInput(anyhow::Error),
    /// The settings are at fault.
    Usage(anyhow::Error),
    Interrupted,
    /// Whoever reads the result has read enough, as `head` does.
    Unread,
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Runs the program.
#[expect(clippy::print_stderr, reason = "the command line's last word")]
pub fn main() -> ExitCode {
    bound_arenas();
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = match command_with_file(&arguments) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("error: {error}");
            return EXIT_USAGE.into();
        }
    };
    let matches = command.get_matches_from(arguments);
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let (code, error) = match cli.command.run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::BadInput(error)) => (EXIT_BAD_INPUT, Some(error)),
        Err(Failure::Usage(error)) => (EXIT_USAGE, Some(error)),
        Err(Failure::Interrupted) => (EXIT_INTERRUPTED, None),
        Err(Failure::Unread) => return ExitCode::SUCCESS,
        Err(Failure::Other(error)) => (EXIT_FAILED, Some(error)),
    };
    match error {
        Some(error) => eprintln!("error: {}", told(&error)),
        None => eprintln!("interrupted"),
    }
    code.into()
}

/// An error and its causes, in a line. Many errors tell their cause themselves, which is not told again.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

/// Prints a line, or lines, of a command's result.
fn print_line(line: impl std::fmt::Display) -> Result<(), Failure> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}").map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Unread,
        _ => error.into(),
    })
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Self::Animate(animate) => animate.run(),
            Self::Serve(serve) => serve.run(),
            Self::Worker(worker) => worker.run(),
            Self::Migrate(migrate) => migrate.run(),
            Self::Gc(gc) => gc.run(),
            Self::Keys(keys) => keys.run(),
            Self::Models(models) => models.run(),
            Self::Doctor(doctor) => doctor.run(),
            Self::Bench(bench) => bench.run(),
        }
    }
}

/// The whole command line, for documents and tests.
pub fn command() -> clap::Command {
    Cli::command()
}

fn command_with_file(arguments: &[std::ffi::OsString]) -> Result<clap::Command, settings::SettingsError> {
    match settings::file_named(arguments) {
        Some(path) => settings::apply_file(command(), &path),
        None => Ok(command()),
    }
}

/// The async runtime of commands that need one.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Runs a service to its end. A thread that a broken driver holds does not keep the process from leaving.
fn run_service<T>(service: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    const THREADS_END_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);
    let runtime = runtime()?;
    let ended = runtime.block_on(service);
    runtime.shutdown_timeout(THREADS_END_WITHIN);
    ended
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let full = || std::io::Error::other("no room");
        let twice = Err::<(), _>(anyhow::anyhow!(full())).context("cannot write a.mp4: no room").unwrap_err();
        assert_eq!(told(&twice), "cannot write a.mp4: no room");
        let once = Err::<(), _>(full()).context("cannot write a.mp4").unwrap_err();
        assert_eq!(told(&once), "cannot write a.mp4: no room");
    }
}
