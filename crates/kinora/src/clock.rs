//! The only reader of clocks: wall time for what people see, monotonic time for leases.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

static PROCESS_START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the Unix epoch.
pub fn wall_ms() -> i64 {
    // A clock before 1970 is answered as 1970: times only order and label, nothing is computed from their absence.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Milliseconds on a clock that never jumps, from a point that only this process knows.
pub fn monotonic_ms() -> i64 {
    PROCESS_START.elapsed().as_millis() as i64
}
