//! One definition of every setting: the command line's own. Flags win over `KINORA_…` variables, those over the
//! configuration file, that over the built-in default.
//!
//! The file is TOML with one table for each command (`[serve]`, `[keys.create]`); a key at the top serves every command
//! that has it. A key is a flag's name with `_` for `-`. Its values become the flags' defaults, so they pass the very
//! same checks and show up in `--help`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

const FILE_FLAG: &str = "--config";
const FILE_VARIABLE: &str = "KINORA_CONFIG";

/// What is wrong with the configuration file.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file is not valid TOML: {0}")]
    Toml(#[from] toml::de::Error),
    #[error("the configuration file has an unknown key `{key}`{}", suggestion(suggested.as_deref()))]
    UnknownKey { key: String, suggested: Option<String> },
    #[error("the configuration file's `{key}` must be a {wanted}")]
    WrongType { key: String, wanted: &'static str },
}

fn suggestion(suggested: Option<&str>) -> String {
    suggested.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}

/// The configuration file that the arguments or the environment name.
pub fn file_named(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == FILE_FLAG {
            return arguments.next().map(PathBuf::from);
        }
        let joined = argument.to_str().and_then(|text| text.strip_prefix(FILE_FLAG)?.strip_prefix('='));
        if let Some(path) = joined {
            return Some(path.into());
        }
    }
    std::env::var_os(FILE_VARIABLE).map(PathBuf::from)
}

/// The hub's address by the variable that other programs share.
pub fn hub_endpoint() -> Option<String> {
    std::env::var("HF_ENDPOINT").ok().filter(|text| !text.is_empty())
}

/// The token for the hub by the variable that other programs share.
pub fn hub_token() -> Option<String> {
    std::env::var("HF_TOKEN").ok().filter(|text| !text.is_empty())
}

/// Makes a file's values the defaults of `command`'s flags.
pub fn apply_file(command: Command, path: &Path) -> Result<Command, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    apply(command, &text.parse()?)
}

fn apply(mut command: Command, file: &Table) -> Result<Command, SettingsError> {
    for (key, value) in file {
        if command.find_subcommand(key).is_some_and(|_| value.is_table()) {
            continue;
        }
        let mut known = false;
        command = everywhere(command, key, value, &mut known)?;
        if !known {
            return Err(unknown(key, "", &names_below(&command)));
        }
    }
    for (key, value) in file {
        if let (Some(_), Value::Table(table)) = (command.find_subcommand(key), value) {
            command = in_subcommand(command, key, table, key)?;
        }
    }
    Ok(command)
}

fn everywhere(
    command: Command,
    key: &str,
    value: &Value,
    known: &mut bool,
) -> Result<Command, SettingsError> {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let mut command = command;
    if let Some(argument) = setting(&command, key) {
        *known = true;
        let id = argument.get_id().clone();
        let text = as_text(argument, key, value)?;
        command = command.mut_arg(id, |argument| defaulted(argument, text));
    }
    for name in names {
        let mut failed = None;
        command = command.mut_subcommand(name, |sub| {
            everywhere(sub.clone(), key, value, known).unwrap_or_else(|error| {
                failed = Some(error);
                sub
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(command)
}

fn in_subcommand(command: Command, name: &str, table: &Table, path: &str) -> Result<Command, SettingsError> {
    let mut failed = None;
    let command = command.mut_subcommand(name, |sub| {
        own_keys(sub.clone(), table, path).unwrap_or_else(|error| {
            failed = Some(error);
            sub
        })
    });
    failed.map_or(Ok(command), Err)
}

fn own_keys(mut command: Command, table: &Table, path: &str) -> Result<Command, SettingsError> {
    for (key, value) in table {
        let full = format!("{path}.{key}");
        if let (Some(_), Value::Table(inner)) = (command.find_subcommand(key), value) {
            command = in_subcommand(command, key, inner, &full)?;
        } else if let Some(argument) = setting(&command, key) {
            let id = argument.get_id().clone();
            let text = as_text(argument, &full, value)?;
            command = command.mut_arg(id, |argument| defaulted(argument, text));
        } else {
            return Err(unknown(key, &format!("{path}."), &names_below(&command)));
        }
    }
    Ok(command)
}

/// The flag that a key of the file sets; positional arguments and the file's own flag are not settings.
fn setting<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    settings(command).find(|argument| argument.get_id() == key)
}

/// Every flag of a command that can be set from file and environment.
pub fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| {
        !matches!(
            argument.get_action(),
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        ) && !argument.is_positional()
            && argument.get_id() != "config"
    })
}

fn defaulted(argument: Arg, values: Vec<String>) -> Arg {
    argument.default_values(values).required(false)
}

fn as_text(argument: &Arg, key: &str, value: &Value) -> Result<Vec<String>, SettingsError> {
    let wrong = |wanted| SettingsError::WrongType { key: key.to_owned(), wanted };
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
    match value {
        Value::Boolean(on) if is_switch => Ok(vec![on.to_string()]),
        _ if is_switch => Err(wrong("boolean (true or false)")),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Integer(number) => Ok(vec![number.to_string()]),
        Value::Float(number) => Ok(vec![number.to_string()]),
        Value::Array(items) if matches!(argument.get_action(), ArgAction::Append) => {
            let text =
                |item: &Value| item.as_str().map(str::to_owned).ok_or_else(|| wrong("list of strings"));
            items.iter().map(text).collect()
        }
        _ => Err(wrong("string or number")),
    }
}

fn names_below(command: &Command) -> Vec<String> {
    let own = settings(command).map(|argument| argument.get_id().to_string());
    let below = command.get_subcommands().flat_map(|sub| {
        let mut names = names_below(sub);
        names.push(sub.get_name().to_owned());
        names
    });
    own.chain(below).collect()
}

fn unknown(key: &str, prefix: &str, known: &[String]) -> SettingsError {
    let closest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(name, key), name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    SettingsError::UnknownKey {
        key: format!("{prefix}{key}"),
        suggested: closest.map(|(_, name)| format!("{prefix}{name}")),
    }
}

#[cfg(test)]
mod tests;
