//! `kinora keys`: make, list and revoke API keys.

use clap::{Args, Subcommand};

use super::storage::{Database, kept};
use super::{Failure, print_line, runtime};
use crate::clock;
use crate::keys;

/// Make, list and revoke API keys; works while the server runs.
#[derive(Debug, Subcommand)]
pub enum Keys {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a key for an organisation and print it, alone and only this once.
#[derive(Debug, Args)]
pub struct Create {
    /// The organisation whose requests the key may submit and see.
    #[arg(long, value_name = "NAME", env = "KINORA_ORG", value_parser = parse_name)]
    org: String,
    /// The owner, answered as user_id.
    #[arg(long, value_name = "NAME", env = "KINORA_USER", default_value = "default", value_parser = parse_name)]
    user: String,
    #[command(flatten)]
    database: Database,
}

/// List all keys: id, first characters, organisation, user, state.
#[derive(Debug, Args)]
pub struct List {
    /// Print one JSON array instead of a table.
    #[arg(long, env = "KINORA_JSON")]
    json: bool,
    #[command(flatten)]
    database: Database,
}

/// Revoke a key; a running server refuses it within a second.
#[derive(Debug, Args)]
pub struct Revoke {
    /// The key's id, from `kinora keys list`.
    id: String,
    #[command(flatten)]
    database: Database,
}

/// Names go into headers and log lines.
fn parse_name(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 visible ASCII characters without spaces".to_owned())
    }
}

impl Keys {
    pub fn run(self) -> Result<(), Failure> {
        runtime()?.block_on(async {
            match self {
                Self::Create(create) => create.run().await,
                Self::List(list) => list.run().await,
                Self::Revoke(revoke) => revoke.run().await,
            }
        })
    }
}

#[expect(clippy::print_stdout, reason = "the command's result")]
impl Create {
    async fn run(self) -> Result<(), Failure> {
        let key = keys::create(&self.database.open(kept()).await?, &self.org, &self.user).await?;
        println!("{}", key.reveal());
        Ok(())
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let rows = self.database.open(kept()).await?.keys().await?;
        if self.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| {
                    serde_json::json!({
                        "id": row.id, "hint": row.hint, "org_id": row.org_id, "user_id": row.user_id,
                        "created_at": row.created_at_ms / 1000,
                        "revoked_at": row.revoked_at_ms.map(|ms| ms / 1000),
                    })
                })
                .collect();
            return print_line(serde_json::Value::from(rows));
        }
        print_line(format!("{:36}  {:11}  {:20}  {:20}  STATE", "ID", "KEY", "ORGANISATION", "USER"))?;
        for row in rows {
            let state = if row.revoked_at_ms.is_some() { "revoked" } else { "live" };
            let hint = format!("{}…", row.hint);
            print_line(format!("{:36}  {hint:11}  {:20}  {:20}  {state}", row.id, row.org_id, row.user_id))?;
        }
        Ok(())
    }
}

#[expect(clippy::print_stderr, reason = "the command's result, for people")]
impl Revoke {
    async fn run(self) -> Result<(), Failure> {
        let store = self.database.open(kept()).await?;
        if !store.revoke_key(&self.id, clock::wall_ms()).await? {
            let id = &self.id;
            return Err(Failure::BadInput(anyhow::anyhow!(
                "there is no live key with the id `{id}`; see `kinora keys list`"
            )));
        }
        eprintln!("revoked {}", self.id);
        Ok(())
    }
}
