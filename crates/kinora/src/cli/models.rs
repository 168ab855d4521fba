//! `kinora models`: weights for the neural engine, fetched, checked and removed.

use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use url::Url;

use super::{Failure, print_line, runtime};
use crate::library::{
    CATALOGUE, Card, FileEntry, FileList, Hub, HubError, Library, Order, State, Variant, Watcher, card, pull,
};
use crate::settings;

const HUB: &str = "https://huggingface.co";
const BAR: &str =
    "{msg:40!} [{bar:30}] {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";

/// List, fetch, check and remove weights for the neural engine.
///
/// They are published under licences of their own, fetched by you from their makers' repository, and stay in one folder.
/// Nothing is fetched by any other command, and a fetched set needs no network.
#[derive(Debug, Subcommand)]
pub enum Models {
    List(List),
    Info(Info),
    Pull(Pull),
    Verify(Verify),
    Rm(Rm),
}

/// List the sets that are known, and how much of each is here.
#[derive(Debug, Args)]
pub struct List {
    /// Print one JSON array instead of a table.
    #[arg(long, env = "KINORA_JSON")]
    json: bool,
    #[command(flatten)]
    library: Library,
}

/// Say what a set is, under which licence, where it comes from, and, once it was begun, which files it has.
#[derive(Debug, Args)]
pub struct Info {
    /// The set's name, from `kinora models list`.
    #[arg(value_parser = parse_card)]
    name: &'static Card,
    /// Print one JSON object instead of lines.
    #[arg(long, env = "KINORA_JSON")]
    json: bool,
    #[command(flatten)]
    library: Library,
}

/// Fetch a set, or go on where a fetch was interrupted.
///
/// Every file is checked against the hash that the repository names. A token in KINORA_HF_TOKEN or HF_TOKEN is sent to
/// the hub alone; a mirror is named by --hub, KINORA_HUB or HF_ENDPOINT.
#[derive(Debug, Args)]
pub struct Pull {
    /// The set's name, from `kinora models list`.
    #[arg(value_parser = parse_card)]
    name: &'static Card,
    /// Quantised transformers and text encoder in place of the published ones: smaller on disk and in memory, and coarser.
    #[arg(long, value_name = "NAME", env = "KINORA_VARIANT", value_enum)]
    variant: Option<Variant>,
    /// Branch, tag or commit; a set that was begun is finished as it was begun.
    #[arg(long, value_name = "NAME", env = "KINORA_REVISION", default_value = "main", value_parser = parse_revision)]
    revision: String,
    /// The hub, or a mirror of it.
    #[arg(long, value_name = "URL", env = "KINORA_HUB", value_parser = parse_hub)]
    hub: Option<Url>,
    /// Token for the hub; better given by the variable, since other users can see a process's flags.
    #[arg(long, value_name = "TOKEN", env = "KINORA_HF_TOKEN", hide_env_values = true)]
    hf_token: Option<String>,
    /// Show no progress.
    #[arg(long, env = "KINORA_QUIET")]
    quiet: bool,
    #[command(flatten)]
    library: Library,
}

/// Read every byte of a set and compare it with its list.
#[derive(Debug, Args)]
pub struct Verify {
    /// The set's name, from `kinora models list`.
    #[arg(value_parser = parse_card)]
    name: &'static Card,
    /// Show no progress.
    #[arg(long, env = "KINORA_QUIET")]
    quiet: bool,
    #[command(flatten)]
    library: Library,
}

/// Remove a set from this machine.
#[derive(Debug, Args)]
pub struct Rm {
    /// The set's name, from `kinora models list`.
    #[arg(value_parser = parse_card)]
    name: &'static Card,
    #[command(flatten)]
    library: Library,
}

fn parse_card(name: &str) -> Result<&'static Card, String> {
    let known = || CATALOGUE.map(|card| card.name).join(", ");
    card(name).ok_or_else(|| format!("known are {}", known()))
}

fn parse_revision(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=100).contains(&text.len()) && text.bytes().all(is_plain) && !text.starts_with('.') {
        Ok(text.to_owned())
    } else {
        Err("must be a branch, tag or commit: letters, digits, `.`, `_` and `-`".to_owned())
    }
}

fn parse_hub(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| e.to_string())?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none() {
        Ok(url)
    } else {
        Err("must be an http or https URL without query".to_owned())
    }
}

impl Models {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(),
            Self::Info(info) => info.run(),
            Self::Pull(pull) => runtime()?.block_on(pull.run()),
            Self::Verify(verify) => verify.run(),
            Self::Rm(rm) => rm.run(),
        }
    }
}

/// A size of files as people read it, in decimal units as disks are sold in.
pub(super) fn file_size(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        0.0..1e3 => format!("{bytes} B"),
        1e3..1e6 => format!("{:.1} kB", bytes / 1e3),
        1e6..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

/// A state as people read it.
pub(super) fn state_text(state: State) -> String {
    match state {
        State::Absent => "not fetched".to_owned(),
        State::Partial { here_bytes, size_bytes } => {
            format!("{} of {}", file_size(here_bytes), file_size(size_bytes))
        }
        State::Complete { size_bytes } => format!("complete, {}", file_size(size_bytes)),
    }
}

pub(super) fn state_json(state: State) -> serde_json::Value {
    match state {
        State::Absent => json!({"state": "absent"}),
        State::Partial { here_bytes, size_bytes } => {
            json!({"state": "partial", "here_bytes": here_bytes, "size_bytes": size_bytes})
        }
        State::Complete { size_bytes } => json!({"state": "complete", "size_bytes": size_bytes}),
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let library = self.library;
        let mut rows = Vec::new();
        for card in &CATALOGUE {
            let state = library.state(card)?;
            if self.json {
                let mut row = state_json(state);
                row["name"] = card.name.into();
                row["licence"] = card.licence.into();
                rows.push(row);
            } else {
                let state = state_text(state);
                print_line(format!("{:18} {:12} {state:24} {}", card.name, card.licence, card.description))?;
            }
        }
        if self.json {
            print_line(serde_json::Value::from(rows))?;
        }
        Ok(())
    }
}

impl Info {
    fn run(self) -> Result<(), Failure> {
        let (library, card) = (self.library, self.name);
        let (state, list) = (library.state(card)?, library.list(card)?);
        if self.json {
            let mut object = state_json(state);
            object["name"] = card.name.into();
            object["title"] = card.title.into();
            object["description"] = card.description.into();
            object["licence"] = card.licence.into();
            object["repository"] = card.repository.into();
            object["quantised_repositories"] =
                card.quantised.iter().map(|part| part.repository).collect::<Vec<_>>().into();
            object["variant"] = list.as_ref().map(|list| list.variant().to_owned()).into();
            object["folder"] = library.folder(card).display().to_string().into();
            object["revision"] = list.as_ref().map(|list| list.revision.clone()).into();
            return print_line(object);
        }
        let mut lines = format!("{} ({})\n{}\n", card.title, card.name, card.description);
        lines += &format!("licence     {}\nrepository  {}\n", card.licence, card.repository);
        for part in card.quantised {
            lines += &format!("quantised   {} from {}\n", part.folder, part.repository);
        }
        lines += &format!("folder      {}\n", library.folder(card).display());
        lines += &format!("here        {}\n", state_text(state));
        if let Some(list) = list {
            lines += &format!("variant     {}\nrevision    {}\n", list.variant(), list.revision);
            for file in &list.files {
                lines += &format!("  {:>10}  {}\n", file_size(file.size_bytes), file.path);
            }
        }
        print_line(lines.trim_end())
    }
}

#[expect(clippy::print_stderr, reason = "the command's result, for people")]
impl Pull {
    async fn run(self) -> Result<(), Failure> {
        let (library, card) = (self.library, self.name);
        let endpoint = match (self.hub, settings::hub_endpoint()) {
            (Some(hub), _) => hub,
            (None, Some(named)) => parse_hub(&named)
                .map_err(|error| Failure::Usage(anyhow::anyhow!("HF_ENDPOINT {named:?} {error}")))?,
            (None, None) => Url::parse(HUB).expect("the hub's address is a URL"),
        };
        let hub = Hub::new(endpoint.clone(), self.hf_token.or_else(settings::hub_token));
        eprintln!("{} by its makers under {}, from {endpoint}{}", card.title, card.licence, card.repository);
        let order = Order { card, variant: self.variant, revision: &self.revision };
        if order.variant.is_some_and(|variant| variant != Variant::Full) {
            for part in card.quantised {
                eprintln!("its {} quantised by others, from {endpoint}{}", part.folder, part.repository);
            }
        }
        let mut watcher = Bar::new(self.quiet);
        tokio::select! {
            pulled = pull(&library, order, &hub, &mut watcher) => pulled?,
            _ = tokio::signal::ctrl_c() => {
                watcher.bar.abandon();
                eprintln!("what is here is kept: run the same command to go on");
                return Err(Failure::Interrupted);
            }
        }
        watcher.bar.finish_and_clear();
        eprintln!("{} is complete in {}", card.name, library.folder(card).display());
        Ok(())
    }
}

/// Shows a pull as one bar over the whole set; where there is no terminal, as a line for each file.
struct Bar {
    bar: ProgressBar,
    is_quiet: bool,
}

#[expect(clippy::print_stderr, reason = "what happens, for people")]
impl Bar {
    fn new(is_quiet: bool) -> Self {
        let bar = if is_quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let style = ProgressStyle::with_template(BAR).expect("the template is well-formed");
        bar.set_style(style.progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, is_quiet }
    }

    /// Says a line above the bar, or where there is none.
    fn say(&self, line: &str) {
        if !self.bar.is_hidden() {
            self.bar.println(line);
        } else if !self.is_quiet {
            eprintln!("{line}");
        }
    }
}

impl Watcher for Bar {
    fn listed(&mut self, list: &FileList, here_bytes: u64) {
        let (all, here) = (file_size(list.size_bytes()), file_size(here_bytes));
        self.say(&format!("{} files of {all}, of which {here} are here", list.files.len()));
        self.bar.set_length(list.size_bytes());
        self.bar.set_position(here_bytes);
        self.bar.reset_eta();
    }

    fn file(&mut self, file: &FileEntry) {
        if self.bar.is_hidden() {
            self.say(&format!("{}, {}", file.path, file_size(file.size_bytes)));
        }
        self.bar.set_message(file.path.clone());
    }

    fn here(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    fn waiting(&mut self, why: &HubError, pause: Duration) {
        self.say(&format!("{why}; trying again in {:.1} s", pause.as_secs_f32()));
    }
}

#[expect(clippy::print_stderr, reason = "the command's result, for people")]
impl Verify {
    fn run(self) -> Result<(), Failure> {
        let (library, card) = (self.library, self.name);
        let bar = Bar::new(self.quiet);
        if let Some(list) = library.list(card)? {
            bar.bar.set_length(list.size_bytes());
        }
        let wrong = library.verify(card, |bytes| bar.bar.inc(bytes))?;
        bar.bar.finish_and_clear();
        if wrong.is_empty() {
            eprintln!("{} is whole: every file has the hash that its repository names", card.name);
            return Ok(());
        }
        let wrong = wrong.join("; ");
        Err(anyhow::anyhow!(
            "{} is not whole: {wrong}. `kinora models pull {}` fetches what is missing; remove what is damaged from {} first",
            card.name,
            card.name,
            library.folder(card).display()
        )
        .into())
    }
}

#[expect(clippy::print_stderr, reason = "the command's result, for people")]
impl Rm {
    fn run(self) -> Result<(), Failure> {
        let (library, card) = (self.library, self.name);
        if library.remove(card)? {
            eprintln!("removed {}", library.folder(card).display());
            Ok(())
        } else {
            Err(Failure::BadInput(anyhow::anyhow!(
                "{} is not here: there is no {}",
                card.name,
                library.folder(card).display()
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_largest_unit_that_fits() {
        let told = [0, 999, 1000, 3_343_961, 999_999_999, 34_200_000_000].map(file_size);
        assert_eq!(told, ["0 B", "999 B", "1.0 kB", "3.3 MB", "1000.0 MB", "34.2 GB"]);
    }
}
