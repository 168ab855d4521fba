//! The queue: a job is one row, at once the public resource and the work to do.
//!
//! Always true: a state changes only through [`Job::apply`]; every change is one transaction, on disk before it is
//! answered; no transaction is open while an engine works. The statements stand once, in `repository/`, and are compiled
//! for each database.

mod cache;
mod changes;
mod outlook;
mod postgres;
mod record;
mod row_clock;
mod schema;
mod signals;
mod sqlite;
mod state;
mod store;

pub use changes::{Claim, Heartbeat, NewJob, NewKey, Presence, SubmitError};
pub use outlook::Outlook;
pub use record::{Expired, InputRow, Job, JobProgress, KeyRow, Outcome, Unended, UploadRow};
pub use schema::Schema;
pub use state::{Event, Refused, Status};
pub use store::{DatabaseUrl, JobFilter, JobPage, JobStore, StoreError, StoreSettings};
