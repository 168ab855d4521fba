//! Every change that can be made to the store, as data. How each is made stands in `repository/`.

use uuid::Uuid;

use super::record::{InputRow, Job, JobProgress, KeyRow, UploadRow};
use super::state::{Event, Refused, Status};

/// A request that passed every check.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub id: Uuid,
    pub org_id: String,
    pub user_id: String,
    pub model: String,
    pub payload: String,
    pub input_sha256: [u8; 32],
    pub input_inline: bool,
    pub seed: i64,
    pub priority: i64,
    pub now_ms: i64,
}

/// Why a valid request is not accepted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("the organisation already has {queued_max} requests waiting, which is the limit")]
    QueueFull { queued_max: i64 },
}

/// What becomes of a submitted job.
pub(super) type Accepted = Result<Job, SubmitError>;

impl NewJob {
    /// The job as it is accepted, in its place in the order of acceptance.
    pub(super) fn accepted(self, seq: i64) -> Job {
        let Self { id, org_id, user_id, model, payload, input_sha256, input_inline, seed, priority, now_ms } =
            self;
        Job {
            seq,
            id,
            revision: 0,
            org_id,
            user_id,
            model,
            status: Status::Queued,
            payload,
            input_sha256,
            input_inline,
            seed,
            priority,
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            queued_at_ms: now_ms,
            started_at_ms: None,
            finished_at_ms: None,
            attempt: 0,
            attempts_lost: 0,
            lease_until_ms: None,
            worker_id: String::new(),
            progress: None,
            outcome: None,
            error: None,
        }
    }
}

/// The waiting job of a model whose turn it is, to be leased by a worker.
#[derive(Debug, Clone)]
pub struct Claim {
    pub model: String,
    pub worker_id: String,
    /// Without a sign of life for this long, the worker counts as lost.
    pub lease_ms: i64,
    pub now_ms: i64,
}

/// A claim within the store's limits.
#[derive(Debug)]
pub(super) struct TakeTurn {
    pub(super) claim: Claim,
    /// Jobs that one organisation may have in progress.
    pub(super) running_max: i64,
}

/// Forgets jobs, as far as they have ended.
#[derive(Debug)]
pub(super) struct ForgetJobs {
    pub(super) ids: Vec<Uuid>,
}

/// Forgets uploads that were granted before a time; answers how many.
#[derive(Debug)]
pub(super) struct ForgetUploads {
    pub(super) before_ms: i64,
}

/// A worker is there, for these models, and this fast.
#[derive(Debug, Clone)]
pub struct Presence {
    pub worker_id: String,
    pub models: Vec<String>,
    pub engine: String,
    pub pace_ms: Option<i64>,
}

/// A worker has stopped.
#[derive(Debug)]
pub(super) struct WorkerGone {
    pub(super) worker_id: String,
}

/// One event for one job; `None` where the organisation has no such job.
#[derive(Debug)]
pub(super) struct Happen {
    pub(super) id: Uuid,
    /// Looks only at this organisation's jobs.
    pub(super) org_id: Option<String>,
    pub(super) what: What,
    pub(super) now_ms: i64,
}

/// An event, or a sign of life, whose lease is reckoned by the store's own clock.
#[derive(Debug, Clone)]
pub(super) enum What {
    Event(Event),
    Heartbeat(Heartbeat),
}

/// A worker is alive, and this far.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    pub attempt: i64,
    pub lease_ms: i64,
    pub progress: Option<JobProgress>,
}

pub(super) type Happened = Option<Result<Job, Refused>>;

/// Takes back what lost workers hold.
#[derive(Debug)]
pub(super) struct ExpireLeases {
    pub(super) which: Leases,
    pub(super) attempts_max: i64,
    pub(super) now_ms: i64,
}

/// Which leases are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leases {
    /// Those whose time has come.
    Overdue,
    /// All: no worker outlives the process that holds the database, so at its start none is held.
    All,
}

/// Answers the row that stands for the picture, which is another where it was added before.
#[derive(Debug)]
pub(super) struct AddInput {
    pub(super) input: InputRow,
}

/// Notes that a picture is about to be named; `None` where it is not stored.
#[derive(Debug)]
pub(super) struct UseInput {
    pub(super) sha256: [u8; 32],
    pub(super) now_ms: i64,
}

#[derive(Debug)]
pub(super) struct GrantUpload {
    pub(super) upload: UploadRow,
    pub(super) now_ms: i64,
}

/// Ties a stored picture to its grant; a later upload under the same grant replaces it.
#[derive(Debug)]
pub(super) struct FillUpload {
    pub(super) id: Uuid,
    pub(super) input_sha256: [u8; 32],
}

/// An API key to be kept as its hash.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub row: KeyRow,
    pub sha256: [u8; 32],
}

#[derive(Debug)]
pub(super) struct RevokeKey {
    pub(super) id: String,
    pub(super) now_ms: i64,
}
