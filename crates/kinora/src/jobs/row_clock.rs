//! What time it is for the rows: this machine's wall clock where one process writes, the database's where several do.
//!
//! Always true: reading it asks nobody. Between two looks at the database's clock, time goes on by this process's own
//! monotonic clock, so that nobody who sets this machine's wall clock moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock;

/// The clock by which rows say when. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct RowClock {
    /// What the database's clock is ahead of this process's monotonic one; `None` where there is only this machine.
    ahead_ms: Option<Arc<AtomicI64>>,
}

impl RowClock {
    /// The clock of a database at which it is `now_ms`.
    pub(super) fn of_database(now_ms: i64) -> Self {
        let clock = Self { ahead_ms: Some(Arc::default()) };
        clock.set(now_ms);
        clock
    }

    /// Notes what the database's clock says.
    pub(super) fn set(&self, now_ms: i64) {
        if let Some(ahead_ms) = &self.ahead_ms {
            ahead_ms.store(now_ms - clock::monotonic_ms(), Ordering::Relaxed);
        }
    }

    /// Milliseconds since the Unix epoch.
    pub(super) fn now_ms(&self) -> i64 {
        let of_database =
            |ahead_ms: &Arc<AtomicI64>| clock::monotonic_ms() + ahead_ms.load(Ordering::Relaxed);
        self.ahead_ms.as_ref().map_or_else(clock::wall_ms, of_database)
    }
}
