//! Accepting jobs: those that wait at the same time are inserted together.
//!
//! A statement costs a visit to the connection's thread, more than the insertion of a row; so jobs that are submitted
//! while the transaction before is being synced share one. They share the sync as well, as all changes do.

use std::collections::{BTreeSet, HashMap};

use sqlx::QueryBuilder;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::writer::{Applied, Change, Writer};
use super::{Connection, Db};
use crate::jobs::changes::{Accepted, NewJob, SubmitError};
use crate::jobs::record::Job;
use crate::jobs::store::StoreError;

/// Jobs inserted by one change at most.
const BATCH_MAX: usize = 128;
/// Jobs that may wait before callers are held back.
const WAITING_MAX: usize = 1024;
/// Rows of one statement: bounds how many statements of different length are kept prepared.
const ROWS_MAX: usize = 32;

/// Hands jobs to the task that gathers them.
#[derive(Debug, Clone)]
pub(super) struct Submitter {
    waiting: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    job: NewJob,
    reply: oneshot::Sender<Result<Accepted, StoreError>>,
}

impl Submitter {
    /// Starts the gathering task; it ends when the last `Submitter` is dropped.
    pub(super) fn start(writer: Writer, queued_max: i64) -> Self {
        let (waiting, inbox) = mpsc::channel(WAITING_MAX);
        tokio::spawn(gather(writer, queued_max, inbox));
        Self { waiting }
    }

    /// Accepts a job. Once sent, it is inserted even if the caller goes away.
    pub(super) async fn submit(&self, job: NewJob) -> Result<Accepted, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.waiting.send(Waiting { job, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

async fn gather(writer: Writer, queued_max: i64, mut inbox: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while inbox.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let (jobs, replies): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|waiting| (waiting.job, waiting.reply)).unzip();
        if jobs.len() == 1 {
            submit_singly(&writer, queued_max, jobs, replies).await;
            continue;
        }
        match writer.commit(SubmitAll { jobs: jobs.clone(), queued_max }).await {
            Ok(answers) => {
                answers.into_iter().zip(replies).for_each(|(answer, reply)| tell(reply, Ok(answer)));
            }
            Err(_) => submit_singly(&writer, queued_max, jobs, replies).await,
        }
    }
}

/// One change for each job, so that a bad one harms only itself.
async fn submit_singly(
    writer: &Writer,
    queued_max: i64,
    jobs: Vec<NewJob>,
    replies: Vec<oneshot::Sender<Result<Accepted, StoreError>>>,
) {
    for (job, reply) in jobs.into_iter().zip(replies) {
        let answers = writer.commit(SubmitAll { jobs: vec![job], queued_max }).await;
        tell(reply, answers.map(|mut answers| answers.pop().expect("one job, one answer")));
    }
}

fn tell(reply: oneshot::Sender<Result<Accepted, StoreError>>, answer: Result<Accepted, StoreError>) {
    // A caller that went away needs no answer; its job stands.
    let _ = reply.send(answer);
}

/// Inserts jobs, each unless its organisation's queue is full; answers in the order of `jobs`.
#[derive(Debug)]
struct SubmitAll {
    jobs: Vec<NewJob>,
    queued_max: i64,
}

impl Change for SubmitAll {
    type Answer = Vec<Accepted>;

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<Self::Answer>, sqlx::Error> {
        let admitted = self.admitted(connection).await?;
        let rows: Vec<&NewJob> =
            self.jobs.iter().zip(&admitted).filter_map(|(job, admitted)| admitted.then_some(job)).collect();
        let mut changed = Vec::with_capacity(rows.len());
        for rows in rows.chunks(ROWS_MAX) {
            insert(connection, rows, &mut changed).await?;
        }
        let mut inserted = changed.iter();
        let answer = admitted.into_iter().map(|admitted| {
            let job = admitted.then(|| inserted.next().expect("every admitted job was inserted"));
            job.cloned().ok_or(SubmitError::QueueFull { queued_max: self.queued_max })
        });
        Ok(Applied::with(answer.collect(), changed))
    }
}

impl SubmitAll {
    /// For each job whether its organisation's queue has room for it, the jobs before it counted in.
    async fn admitted(&self, connection: &mut Connection) -> Result<Vec<bool>, sqlx::Error> {
        let organisations: BTreeSet<&str> = self.jobs.iter().map(|job| job.org_id.as_str()).collect();
        let mut counts = QueryBuilder::<Db>::new(
            "SELECT org_id, model, CAST(SUM(count) AS BIGINT) FROM job_counts WHERE status = 'queued' AND org_id IN (",
        );
        let mut listed = counts.separated(", ");
        for organisation in organisations {
            listed.push_bind(organisation);
        }
        listed.push_unseparated(") GROUP BY org_id, model");
        let counts: Vec<(String, String, i64)> = counts.build_query_as().fetch_all(connection).await?;
        let mut queued: HashMap<(&str, &str), i64> =
            counts.iter().map(|(org, model, count)| ((org.as_str(), model.as_str()), *count)).collect();
        let admitted = self.jobs.iter().map(|job| {
            let count = queued.entry((&job.org_id, &job.model)).or_default();
            *count += 1;
            *count <= self.queued_max
        });
        Ok(admitted.collect())
    }
}

/// Inserts `rows` in one statement and appends the jobs, in the same order, to `jobs`.
async fn insert(
    connection: &mut Connection,
    rows: &[&NewJob],
    jobs: &mut Vec<Job>,
) -> Result<(), sqlx::Error> {
    let mut statement = QueryBuilder::<Db>::new(
        "INSERT INTO jobs (id, revision, org_id, user_id, model, status, payload, input_sha256, input_inline, seed, priority, \
         created_at_ms, updated_at_ms, queued_at_ms, attempt, attempts_lost, worker_id) ",
    );
    statement.push_values(rows, |mut row, new| {
        row.push_bind(new.id).push("0").push_bind(&new.org_id).push_bind(&new.user_id).push_bind(&new.model);
        row.push("'queued'").push_bind(&new.payload).push_bind(&new.input_sha256[..]);
        row.push_bind(new.input_inline).push_bind(new.seed).push_bind(new.priority);
        row.push_bind(new.now_ms).push_bind(new.now_ms).push_bind(new.now_ms).push("0, 0, ''");
    });
    // The rows that a statement returns come in no promised order.
    statement.push(" RETURNING id, seq");
    let inserted: Vec<(Uuid, i64)> = statement.build_query_as().fetch_all(connection).await?;
    let seq_of: HashMap<Uuid, i64> = inserted.into_iter().collect();
    for &new in rows {
        let seq = seq_of.get(&new.id).ok_or(sqlx::Error::RowNotFound)?;
        jobs.push(new.clone().accepted(*seq));
    }
    Ok(())
}
