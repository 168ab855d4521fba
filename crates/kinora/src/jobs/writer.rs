//! The one writer: takes every change that is waiting, commits them together, and answers after the commit.
//!
//! One sync then serves many callers (group commit), which is what makes durable submits fast. A batch that fails is
//! rolled back and its changes are tried one by one, so that a bad change harms only itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

use super::record::Job;
use super::store::{JobCache, StoreError};

/// Changes in one transaction at most: bounds how long the first waits for the last.
const BATCH_MAX: usize = 256;
/// Changes that may wait before callers are held back.
const WAITING_MAX: usize = 1024;

/// One atomic change. It may be applied twice (after a rollback), so it keeps no state of its own.
pub(super) trait Change: Send + Sync + 'static {
    type Answer: Send + 'static;

    fn apply(
        &self,
        connection: &mut SqliteConnection,
    ) -> impl Future<Output = Result<Applied<Self::Answer>, sqlx::Error>> + Send;
}

/// What a change answers, and the jobs as it leaves them.
#[derive(Debug)]
pub(super) struct Applied<A> {
    pub(super) answer: A,
    pub(super) changed: Vec<Job>,
}

impl<A> From<A> for Applied<A> {
    fn from(answer: A) -> Self {
        Self { answer, changed: Vec::new() }
    }
}

/// Hands changes to the writing task.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    waiting: mpsc::Sender<Box<dyn Waiting>>,
}

impl Writer {
    /// Starts the writing task on its own connection; it ends when the last `Writer` is dropped.
    pub(super) fn start(connection: SqliteConnection, cache: Arc<JobCache>) -> Self {
        let (waiting, inbox) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write_all(connection, inbox, cache));
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
    fn apply<'a>(
        &'a mut self,
        connection: &'a mut SqliteConnection,
    ) -> BoxFuture<'a, Result<(), sqlx::Error>>;
    fn committed(self: Box<Self>, cache: &JobCache);
    fn failed(self: Box<Self>, error: sqlx::Error);
}

struct InFlight<C: Change> {
    change: C,
    applied: Option<Applied<C::Answer>>,
    reply: oneshot::Sender<Result<C::Answer, StoreError>>,
}

impl<C: Change> Waiting for InFlight<C> {
    fn apply<'a>(
        &'a mut self,
        connection: &'a mut SqliteConnection,
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            self.applied = Some(self.change.apply(connection).await?);
            Ok(())
        })
    }

    fn committed(self: Box<Self>, cache: &JobCache) {
        let applied = self.applied.expect("only applied changes are committed");
        for job in applied.changed {
            cache.put(job);
        }
        // A caller that went away needs no answer; its change stands.
        let _ = self.reply.send(Ok(applied.answer));
    }

    fn failed(self: Box<Self>, error: sqlx::Error) {
        let _ = self.reply.send(Err(StoreError::Database(error)));
    }
}

async fn write_all(
    mut connection: SqliteConnection,
    mut inbox: mpsc::Receiver<Box<dyn Waiting>>,
    cache: Arc<JobCache>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while inbox.recv_many(&mut batch, BATCH_MAX).await > 0 {
        match transact(&mut connection, &mut batch).await {
            Ok(()) => answer_all(batch.drain(..), &cache),
            Err(error) if batch.len() == 1 => fail_all(batch.drain(..), error),
            Err(_) => {
                for waiting in batch.drain(..) {
                    let mut alone = vec![waiting];
                    match transact(&mut connection, &mut alone).await {
                        Ok(()) => answer_all(alone.drain(..), &cache),
                        Err(error) => fail_all(alone.drain(..), error),
                    }
                }
            }
        }
    }
}

fn answer_all(batch: impl Iterator<Item = Box<dyn Waiting>>, cache: &JobCache) {
    batch.for_each(|waiting| waiting.committed(cache));
}

fn fail_all(batch: impl Iterator<Item = Box<dyn Waiting>>, error: sqlx::Error) {
    tracing::error!(error = %error, "store.write_failed");
    let mut error = Some(error);
    for waiting in batch {
        waiting.failed(error.take().unwrap_or(sqlx::Error::WorkerCrashed));
    }
}

/// All of `batch` or nothing.
async fn transact(
    connection: &mut SqliteConnection,
    batch: &mut [Box<dyn Waiting>],
) -> Result<(), sqlx::Error> {
    let outcome = apply_and_commit(connection, batch).await;
    if outcome.is_err() {
        // SQLite may already have rolled back by itself (a full disk does that); then this one has nothing to do.
        let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
    }
    outcome
}

async fn apply_and_commit(
    connection: &mut SqliteConnection,
    batch: &mut [Box<dyn Waiting>],
) -> Result<(), sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    for waiting in batch {
        waiting.apply(connection).await?;
    }
    sqlx::query("COMMIT").execute(&mut *connection).await?;
    Ok(())
}
