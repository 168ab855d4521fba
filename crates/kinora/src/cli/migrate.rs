//! `kinora migrate`: brings a database up to date before a new program is started on it.

use clap::Args;

use super::storage::Database;
use super::{Failure, runtime};
use crate::artifacts::DataFolder;
use crate::jobs::StoreSettings;

/// Bring the database up to date, as every start of the server does too.
///
/// Safe to repeat. A PostgreSQL database is locked meanwhile, so that processes which start together take turns; a data
/// folder must not be served by anyone. There is no way back: an older program refuses a newer database.
#[derive(Debug, Args)]
pub struct Migrate {
    #[command(flatten)]
    database: Database,
}

impl Migrate {
    #[expect(clippy::print_stderr, reason = "the command's result, for people")]
    pub fn run(self) -> Result<(), Failure> {
        runtime()?.block_on(async {
            let _lock = match self.database.database_url {
                Some(_) => None,
                None => Some(DataFolder::open(&self.database.data.data_dir)?.lock()?),
            };
            self.database.open(StoreSettings::default()).await?;
            eprintln!("the database is up to date");
            Ok(())
        })
    }
}
