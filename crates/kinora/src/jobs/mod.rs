//! The queue: a job is one row, at once the public resource and the work to do.
//!
//! Always true: a state changes only through [`Job::apply`]; every change is one transaction, on disk before it is
//! answered; no transaction is open while an engine works.

mod changes;
mod record;
mod state;
mod store;
mod submits;
mod writer;

pub use changes::{Claim, NewKey};
pub use record::{InputRow, Job, JobProgress, KeyRow, Outcome, UploadRow};
pub use state::{Event, Refused, Status};
pub use store::{JobFilter, JobPage, JobStore, StoreError, StoreSettings};
pub use submits::{NewJob, SubmitError};
