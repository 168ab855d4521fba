//! `kinora bench service`: durable submits and polls per second, beside other services in the same run.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kinora_engine::Picture;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use url::Url;

use super::load::{Call, Connection, Rate, Target, drive};
use super::median;
use crate::api::BASES;
use crate::cli::{Failure, runtime};
use crate::models::MODEL;

const SIDE_PX: u32 = 320;
/// Requests made beforehand for the polls to read.
const POLLED_COUNT: usize = 64;

/// Durable submits and polls per second over loopback, from this very program's server and from its peers in turn.
///
/// Starts its own server (without a worker) on a temporary data folder. Each connection submits its own small picture
/// inline, over and over; polls read requests made beforehand. Rounds of all services alternate, and medians are shown.
#[derive(Debug, Args)]
pub struct BenchService {
    /// Connections, each with one request at a time.
    #[arg(long, value_name = "N", env = "KINORA_CONNECTIONS", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Seconds of each round.
    #[arg(long, value_name = "S", env = "KINORA_SECONDS", default_value = "3", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds of each service.
    #[arg(long, value_name = "N", env = "KINORA_ROUNDS", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Another service with the same API to measure beside it; repeat for more.
    #[arg(long = "peer", value_name = "NAME=URL,KEY", env = "KINORA_PEER", value_parser = parse_peer)]
    peer: Vec<Target>,
    /// Print one JSON object instead of a table.
    #[arg(long, env = "KINORA_JSON")]
    json: bool,
}

fn parse_peer(text: &str) -> Result<Target, String> {
    let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.split_once(',')?)));
    let (name, (url, key)) = parts.ok_or("must be NAME=URL,KEY")?;
    let url = Url::parse(url).map_err(|e| e.to_string())?;
    Ok(Target { name: name.to_owned(), url, key: key.to_owned() })
}

/// One service's figures over all rounds.
#[derive(Debug, Default)]
struct Figures {
    submits: Vec<Rate>,
    polls: Vec<Rate>,
}

impl BenchService {
    pub fn run(self) -> Result<(), Failure> {
        Ok(runtime()?.block_on(self.measure())?)
    }

    async fn measure(&self) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let own = OwnServer::start(folder.path()).await?;
        let mut targets = vec![own.target.clone()];
        targets.extend(self.peer.iter().cloned());
        let mut figures: Vec<Figures> = targets.iter().map(|_| Figures::default()).collect();
        let polled = self.prepare(&targets).await?;
        let bar = self.bar(targets.len());
        for _ in 0..self.rounds {
            for (index, target) in targets.iter().enumerate() {
                bar.set_message(target.name.clone());
                figures[index].submits.push(drive(target, self.submits(), self.length()).await?);
                bar.inc(1);
                figures[index].polls.push(drive(target, self.polls(&polled[index]), self.length()).await?);
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        let resident_bytes = own.resident_bytes();
        own.stop().await?;
        self.show(&targets, &figures, resident_bytes);
        Ok(())
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn bar(&self, targets_count: usize) -> ProgressBar {
        let bar = ProgressBar::new(u64::from(self.rounds) * targets_count as u64 * 2);
        let style = ProgressStyle::with_template("{msg:16} [{bar:40}] {pos}/{len}  {eta} left");
        bar.set_style(style.expect("the template is well-formed").progress_chars("=> "));
        bar
    }

    /// Submits what the polls will read; this also warms every service up.
    async fn prepare(&self, targets: &[Target]) -> anyhow::Result<Vec<Vec<String>>> {
        let mut polled = Vec::new();
        for target in targets {
            let mut connection = Connection::open(target).await?;
            let mut ids = Vec::new();
            for index in 0..POLLED_COUNT {
                let answer: Value = serde_json::from_slice(&connection.send(&submit(index)).await?)?;
                let id = answer["request_id"].as_str().context("the answer to a submit has no request_id")?;
                ids.push(id.to_owned());
            }
            polled.push(ids);
        }
        Ok(polled)
    }

    fn submits(&self) -> Vec<Call> {
        (0..self.connections as usize).map(submit).collect()
    }

    fn polls(&self, ids: &[String]) -> Vec<Call> {
        let path = |index: usize| format!("{}/requests/{}", BASES[0], ids[index % ids.len()]);
        (0..self.connections as usize)
            .map(|index| Call { method: "GET", path: path(index), body: Bytes::new() })
            .collect()
    }

    #[expect(clippy::print_stdout, reason = "the command's result")]
    fn show(&self, targets: &[Target], figures: &[Figures], resident_bytes: Option<u64>) {
        let middle = |rates: &[Rate], of: fn(&Rate) -> f64| median(&rates.iter().map(of).collect::<Vec<_>>());
        let rows: Vec<_> = targets
            .iter()
            .zip(figures)
            .map(|(target, of)| {
                json!({
                    "service": target.name,
                    "submits_per_s": middle(&of.submits, |rate| rate.per_second),
                    "submit_p99_ms": middle(&of.submits, |rate| rate.p99_ms),
                    "polls_per_s": middle(&of.polls, |rate| rate.per_second),
                    "poll_p99_ms": middle(&of.polls, |rate| rate.p99_ms),
                })
            })
            .collect();
        let result = json!({
            "connections": self.connections, "seconds": self.seconds, "rounds": self.rounds,
            "resident_bytes": resident_bytes, "services": rows,
        });
        if self.json {
            println!("{result}");
            return;
        }
        println!(
            "{:20} {:>10} {:>8} {:>10} {:>8}   kinora's ratio",
            "service", "submit/s", "p99 ms", "poll/s", "p99 ms"
        );
        let figure = |row: &Value, name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        for row in &rows {
            println!(
                "{:20} {:>10.0} {:>8.1} {:>10.0} {:>8.1}   {:.1}x submits, {:.1}x polls",
                row["service"].as_str().unwrap_or_default(),
                figure(row, "submits_per_s"),
                figure(row, "submit_p99_ms"),
                figure(row, "polls_per_s"),
                figure(row, "poll_p99_ms"),
                figure(&rows[0], "submits_per_s") / figure(row, "submits_per_s"),
                figure(&rows[0], "polls_per_s") / figure(row, "polls_per_s"),
            );
        }
        if let Some(bytes) = resident_bytes {
            println!("kinora's resident memory afterwards: {:.0} MB", bytes as f64 / 1e6);
        }
    }
}

/// A submit of the picture with this number.
fn submit(index: usize) -> Call {
    let image = STANDARD.encode(picture(index));
    let body = json!({
        "model": MODEL,
        "payload": {"image": image, "prompt": "slow push in, leaves moving gently", "duration": "5", "cfg_scale": 0.5},
    });
    let path = format!("{}/requests", BASES[0]);
    Call { method: "POST", path, body: body.to_string().into() }
}

/// A small JPEG of its own for each number.
fn picture(index: usize) -> Vec<u8> {
    let tint = (index % 251) as u32;
    let rgb: Vec<u8> = (0..SIDE_PX * SIDE_PX)
        .flat_map(|at| [(at % SIDE_PX + tint) as u8, (at / SIDE_PX) as u8, (tint + at / 512) as u8])
        .collect();
    let picture = Picture::new(SIDE_PX, SIDE_PX, rgb).expect("every pixel was drawn");
    kinora_media::thumbnail_jpeg(&picture, SIDE_PX).expect("a picture of a fixed size encodes")
}

/// A server of this very program on a folder of its own.
struct OwnServer {
    child: Child,
    target: Target,
}

impl OwnServer {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let key = Command::new(&program)
            .args(["keys", "create", "--org", "bench", "--data-dir"])
            .arg(folder)
            .output()
            .await?;
        let key = String::from_utf8(key.stdout)?.trim().to_owned();
        let mut child = Command::new(program)
            .args(["serve", "--no-worker", "--listen", "127.0.0.1:0", "--log", "warn"])
            .args(["--queue-limit", "1000000000", "--data-dir"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("the server's output is a pipe")?;
        let line = BufReader::new(stdout).lines().next_line().await?.context("the server ended at once")?;
        let url = line.strip_prefix("listening on ").context("the server did not say where it listens")?;
        let target = Target { name: "kinora".to_owned(), url: Url::parse(url)?, key };
        Ok(Self { child, target })
    }

    /// Where the system tells (Linux).
    fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(id) = self.child.id() {
            let id = rustix::process::Pid::from_raw(id.cast_signed()).context("a process id is positive")?;
            rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        }
        self.child.wait().await?;
        Ok(())
    }
}
