//! Whose turn it is: organisations are served one after the other, so that none starves another.
//!
//! Among the organisations that wait, the one that was served longest ago is next (round robin); within it, the job of
//! the highest priority, then the oldest. An organisation that waits is therefore served at the latest after every other
//! one that waits was served once, however many jobs those have. Organisations that already have as many jobs in
//! progress as they may are passed over.

use super::writer::{Applied, Change};
use super::{Connection, lease_clock_ms};
use crate::jobs::changes::TakeTurn;
use crate::jobs::record::Job;
use crate::jobs::state::Event;

/// Organisations tried by one claim: the first may just have been served by somebody else.
const TRIED_MAX: i64 = 16;

impl Change for TakeTurn {
    type Answer = Option<Job>;

    async fn apply(&self, connection: &mut Connection) -> Result<Applied<Self::Answer>, sqlx::Error> {
        for org_id in waiting(self, connection).await? {
            let Some(mut job) = first_of(self, connection, &org_id).await? else { continue };
            take_turn(self, connection, &org_id).await?;
            if !may_run_more(self, connection, &org_id).await? {
                continue;
            }
            let lease_until_ms = lease_clock_ms(connection).await? + self.claim.lease_ms;
            let claimed = Event::Claimed { worker_id: self.claim.worker_id.clone(), lease_until_ms };
            job.apply(claimed, self.claim.now_ms)
                .map_err(|refused| sqlx::Error::Protocol(refused.to_string()))?;
            super::changes::save(connection, &job).await?;
            return Ok(Applied::with(Some(job.clone()), vec![job]));
        }
        Ok(None.into())
    }
}

/// The organisations that wait and may be served, next first. Jumps from one to the next in the index of the queue,
/// so that its length does not matter.
async fn waiting(turn: &TakeTurn, connection: &mut Connection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "WITH RECURSIVE waiting (org_id) AS ( \
             SELECT (SELECT org_id FROM jobs WHERE status = 'queued' AND model = $1 ORDER BY org_id LIMIT 1) \
             UNION ALL \
             SELECT (SELECT jobs.org_id FROM jobs WHERE jobs.status = 'queued' AND jobs.model = $1 \
                     AND jobs.org_id > waiting.org_id ORDER BY jobs.org_id LIMIT 1) \
             FROM waiting WHERE waiting.org_id IS NOT NULL \
         ) \
         SELECT waiting.org_id FROM waiting \
         LEFT JOIN turns ON turns.org_id = waiting.org_id AND turns.model = $1 \
         WHERE waiting.org_id IS NOT NULL AND (SELECT count(*) FROM jobs \
             WHERE jobs.org_id = waiting.org_id AND jobs.status = 'processing') < $2 \
         ORDER BY COALESCE(turns.turn, 0), waiting.org_id LIMIT $3",
    )
    .bind(&turn.claim.model)
    .bind(turn.running_max)
    .bind(TRIED_MAX)
    .fetch_all(connection)
    .await
}

async fn first_of(
    turn: &TakeTurn,
    connection: &mut Connection,
    org_id: &str,
) -> Result<Option<Job>, sqlx::Error> {
    sqlx::query_as(skip_locked!(
        "SELECT * FROM jobs WHERE status = 'queued' AND model = $1 AND org_id = $2 \
         ORDER BY priority DESC, seq LIMIT 1"
    ))
    .bind(&turn.claim.model)
    .bind(org_id)
    .fetch_optional(connection)
    .await
}

/// Puts the organisation behind all others. Claims of one organisation's jobs pass here one at a time.
async fn take_turn(turn: &TakeTurn, connection: &mut Connection, org_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO turns (org_id, model, turn) \
         VALUES ($1, $2, (SELECT COALESCE(MAX(turn), 0) + 1 FROM turns WHERE model = $2)) \
         ON CONFLICT (org_id, model) DO UPDATE SET turn = excluded.turn",
    )
    .bind(org_id)
    .bind(&turn.claim.model)
    .execute(connection)
    .await?;
    Ok(())
}

/// Looks again, now that nobody else can claim for this organisation.
async fn may_run_more(
    turn: &TakeTurn,
    connection: &mut Connection,
    org_id: &str,
) -> Result<bool, sqlx::Error> {
    if turn.running_max == i64::MAX {
        return Ok(true);
    }
    let running: i64 =
        sqlx::query_scalar("SELECT count(*) FROM jobs WHERE org_id = $1 AND status = 'processing'")
            .bind(org_id)
            .fetch_one(connection)
            .await?;
    Ok(running < turn.running_max)
}
