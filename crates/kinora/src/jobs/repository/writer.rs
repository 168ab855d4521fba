//! Writing: every seat takes the changes that are waiting, commits them together, and answers after the commit.
//!
//! One sync then serves many callers (group commit), which is what makes durable submits fast. A batch that fails is
//! rolled back and its changes are tried one by one, so that a bad change harms only itself. Transactions run in tasks
//! of their own, so no caller that goes away can leave one open.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex, mpsc, oneshot};
use uuid::Uuid;

use super::{BEGIN, Connection, Seat, announce, is_lost};
use crate::jobs::cache::JobCache;
use crate::jobs::record::Job;
use crate::jobs::signals::{Signals, Tidings};
use crate::jobs::store::StoreError;
use crate::telemetry;

/// Changes in one transaction at most: bounds how long the first waits for the last.
const BATCH_MAX: usize = 256;
/// Changes that may wait before callers are held back.
const WAITING_MAX: usize = 1024;

/// One atomic change. It may be applied twice (after a rollback), so it keeps no state of its own.
pub(in crate::jobs) trait Change: Send + Sync + 'static {
    type Answer: Send + 'static;

    fn apply(
        &self,
        connection: &mut Connection,
    ) -> impl Future<Output = Result<Applied<Self::Answer>, sqlx::Error>> + Send;
}

/// What a change answers, and what it means for jobs.
#[derive(Debug)]
pub(in crate::jobs) struct Applied<A> {
    pub(super) answer: A,
    /// As the change leaves them.
    pub(super) changed: Vec<Job>,
    /// Those that are no more.
    pub(super) forgotten: Vec<Uuid>,
}

impl<A> Applied<A> {
    /// An answer, with the jobs that changed.
    pub(super) fn with(answer: A, changed: Vec<Job>) -> Self {
        Self { answer, changed, forgotten: Vec::new() }
    }
}

impl<A> From<A> for Applied<A> {
    fn from(answer: A) -> Self {
        Self::with(answer, Vec::new())
    }
}

/// Hands changes to the writing tasks.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    waiting: mpsc::Sender<Box<dyn Waiting>>,
}

type Inbox = Arc<Mutex<mpsc::Receiver<Box<dyn Waiting>>>>;

impl Writer {
    /// Starts a writing task on each seat; they end when the last `Writer` is dropped.
    pub(super) fn start(seats: Vec<Seat>, cache: Option<&Arc<JobCache>>, signals: &Signals) -> Self {
        let (waiting, inbox) = mpsc::channel(WAITING_MAX);
        let inbox = Arc::new(Mutex::new(inbox));
        for seat in seats {
            let told = Told { cache: cache.cloned(), signals: signals.clone() };
            tokio::spawn(write_all(seat, inbox.clone(), told));
        }
        Self { waiting }
    }

    /// Commits `change` and returns its answer. Once sent, the change is carried out even if the caller goes away.
    pub(super) async fn commit<C: Change>(&self, change: C) -> Result<C::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let waiting = InFlight { change, applied: None, reply };
        self.waiting.send(Box::new(waiting)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A change of any type with the caller that waits for it.
trait Waiting: Send {
    fn apply<'a>(&'a mut self, connection: &'a mut Connection) -> BoxFuture<'a, Result<(), sqlx::Error>>;
    fn changed(&self) -> &[Job];
    fn committed(self: Box<Self>, cache: Option<&JobCache>);
    fn failed(self: Box<Self>, error: sqlx::Error);
}

struct InFlight<C: Change> {
    change: C,
    applied: Option<Applied<C::Answer>>,
    reply: oneshot::Sender<Result<C::Answer, StoreError>>,
}

impl<C: Change> Waiting for InFlight<C> {
    fn apply<'a>(&'a mut self, connection: &'a mut Connection) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            self.applied = Some(self.change.apply(connection).await?);
            Ok(())
        })
    }

    fn changed(&self) -> &[Job] {
        self.applied.as_ref().map_or(&[], |applied| &applied.changed)
    }

    fn committed(self: Box<Self>, cache: Option<&JobCache>) {
        let applied = self.applied.expect("only applied changes are committed");
        if let Some(cache) = cache {
            applied.changed.into_iter().for_each(|job| cache.put(job));
            applied.forgotten.into_iter().for_each(|id| cache.remove(id));
        }
        // A caller that went away needs no answer; its change stands.
        let _ = self.reply.send(Ok(applied.answer));
    }

    fn failed(self: Box<Self>, error: sqlx::Error) {
        let _ = self.reply.send(Err(StoreError::Database(error)));
    }
}

/// Who learns of a commit besides the callers.
struct Told {
    cache: Option<Arc<JobCache>>,
    signals: Signals,
}

async fn write_all(mut seat: Seat, inbox: Inbox, told: Told) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while inbox.lock().await.recv_many(&mut batch, BATCH_MAX).await > 0 {
        match transact(&mut seat, &mut batch, &told).await {
            Ok(()) => answer_all(batch.drain(..), &told),
            Err(error) if batch.len() == 1 || is_lost(&error) => fail_all(batch.drain(..), error),
            Err(_) => {
                for waiting in batch.drain(..) {
                    let mut alone = vec![waiting];
                    match transact(&mut seat, &mut alone, &told).await {
                        Ok(()) => answer_all(alone.drain(..), &told),
                        Err(error) => fail_all(alone.drain(..), error),
                    }
                }
            }
        }
    }
}

fn answer_all(batch: impl Iterator<Item = Box<dyn Waiting>>, told: &Told) {
    batch.for_each(|waiting| waiting.committed(told.cache.as_deref()));
}

fn fail_all(batch: impl Iterator<Item = Box<dyn Waiting>>, error: sqlx::Error) {
    tracing::error!(error = %error, "store.write_failed");
    telemetry::store_failed();
    let mut error = Some(error);
    for waiting in batch {
        waiting.failed(error.take().unwrap_or(sqlx::Error::WorkerCrashed));
    }
}

/// All of `batch` or nothing.
async fn transact(seat: &mut Seat, batch: &mut [Box<dyn Waiting>], told: &Told) -> Result<(), sqlx::Error> {
    let began = Instant::now();
    let applied = apply_and_commit(seat.connection().await?, batch).await;
    match applied {
        Ok(tidings) => {
            telemetry::committed(began.elapsed());
            told.signals.tell(&tidings);
            Ok(())
        }
        Err(error) => {
            seat.roll_back().await;
            Err(error)
        }
    }
}

async fn apply_and_commit(
    connection: &mut Connection,
    batch: &mut [Box<dyn Waiting>],
) -> Result<Tidings, sqlx::Error> {
    sqlx::query(BEGIN).execute(&mut *connection).await?;
    for waiting in batch.iter_mut() {
        waiting.apply(connection).await?;
    }
    let tidings = Tidings::of(batch.iter().flat_map(|waiting| waiting.changed()));
    if !tidings.is_empty() {
        announce(connection, &tidings).await?;
    }
    sqlx::query("COMMIT").execute(&mut *connection).await?;
    Ok(tidings)
}
