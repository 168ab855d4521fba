//! Named points in a worker's life at which a test can make it fail. Release builds have none.
//!
//! `KINORA_FAULT=POINT:KIND` makes the first worker that comes to the point fail there, once: `error` takes the path of a
//! failure that is worth another attempt, `panic` unwinds the worker's task, `abort` ends the process without a word.

/// Where a worker can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The job is leased; nothing is made.
    Claimed,
    /// The clip lies in staging.
    Staged,
    /// The clip lies under its final name.
    Uploaded,
    /// All that is left is to say so.
    BeforeFinish,
    /// The row says `success`.
    Finished,
}

/// A test wanted it so.
#[derive(Debug, thiserror::Error)]
#[error("a test made the worker fail at the point {0:?}")]
pub struct Injected(Point);

/// Fails here if a test wants it so.
#[cfg(debug_assertions)]
pub fn hit(point: Point) -> Result<(), Injected> {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    static WANTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("KINORA_FAULT").ok());
    static IS_DONE: AtomicBool = AtomicBool::new(false);
    let Some((wanted, kind)) = WANTED.as_deref().and_then(|wanted| wanted.split_once(':')) else {
        return Ok(());
    };
    if wanted != format!("{point:?}") || IS_DONE.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    match kind {
        "panic" => panic!("{}", Injected(point)),
        "abort" => std::process::abort(),
        _ => Err(Injected(point)),
    }
}

#[cfg(not(debug_assertions))]
pub fn hit(_: Point) -> Result<(), Injected> {
    Ok(())
}
