//! The queue's statements, written once and compiled for each database by `sqlite.rs` and `postgres.rs` beside this
//! folder. What truly differs between the two stands there: how a transaction begins, which rows it locks, whose clock
//! ends a lease, and whom a commit is told to.

mod changes;
mod outlook;
mod reads;
mod retention;
mod rows;
mod submits;
mod turns;
mod writer;

use std::sync::Arc;

pub(in crate::jobs) use writer::Change;

use super::{BEGIN, Connection, Db, Row, Seat, announce, is_lost, lease_clock_ms};
use crate::jobs::cache::JobCache;
use crate::jobs::changes::{Accepted, NewJob};
use crate::jobs::signals::Signals;
use crate::jobs::store::StoreError;
use submits::Submitter;
use writer::Writer;

/// Connections besides the writers'.
#[derive(Debug)]
pub(in crate::jobs) struct Pools {
    pub(in crate::jobs) readers: sqlx::Pool<Db>,
    /// Remove pictures, in transactions of their own.
    pub(in crate::jobs) forgetters: sqlx::Pool<Db>,
}

/// The queue in one database. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::jobs) struct Repository {
    writer: Writer,
    submitter: Submitter,
    readers: sqlx::Pool<Db>,
    forgetters: sqlx::Pool<Db>,
    /// Where no other process writes.
    cache: Option<Arc<JobCache>>,
}

impl Repository {
    /// Starts one writing task for each seat.
    pub(super) fn start(
        seats: Vec<Seat>,
        pools: Pools,
        writes_alone: bool,
        queued_max: i64,
        signals: &Signals,
    ) -> Self {
        let cache = writes_alone.then(|| Arc::new(JobCache::new()));
        let writer = Writer::start(seats, cache.as_ref(), signals);
        let submitter = Submitter::start(writer.clone(), queued_max);
        let Pools { readers, forgetters } = pools;
        Self { writer, submitter, readers, forgetters, cache }
    }

    /// Carries out a change: when this returns `Ok`, it is on disk.
    pub(in crate::jobs) async fn commit<C: Change>(&self, change: C) -> Result<C::Answer, StoreError> {
        self.writer.commit(change).await
    }

    /// Accepts a job, together with those that wait at the same time.
    pub(in crate::jobs) async fn submit(&self, job: NewJob) -> Result<Accepted, StoreError> {
        self.submitter.submit(job).await
    }
}
