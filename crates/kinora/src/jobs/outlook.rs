//! What a caller who waits may expect: how many go first, and how long that may take.

use std::time::{Duration, Instant};

use serde::Serialize;
use uuid::Uuid;

/// A worker that was not seen for this long is not counted.
pub(super) const WORKER_SEEN_MS: i64 = 30_000;
/// An answer is believed this long, so that callers who poll do not count the queue each time.
const BELIEVED: Duration = Duration::from_secs(2);
const REMEMBERED_MAX: usize = 4096;

/// Milliseconds that a worker takes for a video; absent before its first.
pub(super) type Pace = Option<i64>;

/// Where a waiting job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Outlook {
    /// 1 for the next; how many are served up to and with this one, at most, if no more are submitted.
    pub position: i64,
    /// Seconds until it is begun, at the pace of the workers seen lately; absent where none has made a video yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_wait_s: Option<i64>,
}

impl Outlook {
    pub(super) fn of(ahead: i64, paces: &[Pace]) -> Self {
        // Workers that have no pace yet are taken for as fast as the others.
        let known: Vec<f64> = paces.iter().flatten().map(|&pace_ms| 1.0 / pace_ms.max(1) as f64).collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        let per_ms = mean * paces.len() as f64;
        let estimated_wait_s = (per_ms > 0.0).then(|| (ahead as f64 / per_ms / 1000.0).ceil() as i64);
        Self { position: ahead + 1, estimated_wait_s }
    }
}

/// Outlooks of a moment ago.
#[derive(Debug)]
pub(super) struct Outlooks(quick_cache::sync::Cache<Uuid, (Outlook, Instant)>);

impl Outlooks {
    pub(super) fn new() -> Self {
        Self(quick_cache::sync::Cache::new(REMEMBERED_MAX))
    }

    pub(super) fn get(&self, id: Uuid) -> Option<Outlook> {
        self.0.get(&id).filter(|(_, since)| since.elapsed() < BELIEVED).map(|(outlook, _)| outlook)
    }

    pub(super) fn put(&self, id: Uuid, outlook: Outlook) {
        self.0.insert(id, (outlook, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_what_goes_first_over_what_all_workers_make() {
        let wait = |ahead, paces: &[Pace]| Outlook::of(ahead, paces).estimated_wait_s;
        assert_eq!(wait(10, &[]), None);
        assert_eq!(wait(10, &[None]), None);
        assert_eq!(wait(0, &[Some(2000)]), Some(0));
        assert_eq!(wait(10, &[Some(2000)]), Some(20));
        assert_eq!(wait(10, &[Some(2000), Some(2000)]), Some(10));
        assert_eq!(wait(10, &[Some(2000), None]), Some(10), "a new worker counts as one like the others");
        assert_eq!(wait(1, &[Some(500)]), Some(1), "rounded up");
        assert_eq!(Outlook::of(4, &[]).position, 5);
    }
}
