//! How far a clip is: a bar on a terminal, elsewhere a line now and then.
//!
//! Always true: what is said of the time left is of the stage, at the pace of its own steps so far. Before its first step
//! nothing is said of it, since one step may take many minutes.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use kinora_engine::{Monitor, Progress};

/// Between two lines where there is no terminal: what is made sooner says nothing.
const LINES_APART: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(200);

/// Shows stage, steps, their pace and the time left.
pub(super) struct Bar {
    /// Set to end the work.
    pub(super) stop: Arc<AtomicBool>,
    bar: ProgressBar,
    is_quiet: bool,
    known: Mutex<Known>,
}

/// What was heard last.
struct Known {
    stage: &'static str,
    begun: Instant,
    /// When a line was printed.
    told: Instant,
}

impl Bar {
    pub(super) fn new(is_quiet: bool) -> Self {
        let bar = ProgressBar::new(0);
        if is_quiet || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let now = Instant::now();
        let known = Mutex::new(Known { stage: "", begun: now, told: now });
        Self { stop: Arc::default(), bar, is_quiet, known }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Shows the bar of a step that was just made, `took` after its stage began.
    fn show(&self, Progress { stage, done, total }: Progress, took: Duration) {
        // The bar asks for its text more often than steps are made, and counts on meanwhile.
        let pace = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&pace(done, total, took, took.max(state.elapsed())));
        };
        let template = match total {
            0 | 1 => format!("{stage:15} {{spinner}}  {{pace}}"),
            _ => format!("{stage:15} [{{bar:30}}] {{pos}}/{{len}}  {{pace}}"),
        };
        let style = ProgressStyle::with_template(&template).expect("the names of stages have no braces");
        self.bar.set_style(style.progress_chars("=> ").with_key("pace", pace));
        self.bar.update(|state| {
            state.set_len(total.into());
            state.set_pos(done.into());
        });
    }
}

impl Monitor for Bar {
    fn progress(&self, progress: Progress) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.stage != progress.stage {
            if known.stage.is_empty() {
                self.bar.enable_steady_tick(TICK);
            }
            (known.stage, known.begun) = (progress.stage, now);
            self.bar.reset_elapsed();
        }
        let took = now - known.begun;
        if !self.bar.is_hidden() {
            self.show(progress, took);
        } else if !self.is_quiet && now - known.told >= LINES_APART {
            known.told = now;
            // Where nobody hears it, the clip is made all the same.
            let _ = writeln!(std::io::stderr(), "{}", line(progress, took));
        }
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A stage's progress `took` after it began, as a line.
fn line(Progress { stage, done, total }: Progress, took: Duration) -> String {
    match done {
        0 => format!("{stage} begins"),
        _ => format!("{stage} {done}/{total}, {}", pace(done, total, took, took)),
    }
}

/// The pace of a stage of which `done` were done `took` after it began, and the time left, `elapsed` after it began.
fn pace(done: u32, total: u32, took: Duration, elapsed: Duration) -> String {
    if done == 0 {
        return format!("{} so far", span(elapsed));
    }
    let step = took / done;
    let left = (step * total.saturating_sub(done)).saturating_sub(elapsed - took);
    let each = if step < Duration::from_secs(1) {
        format!("{:.1} a second", 1.0 / step.as_secs_f64().max(1e-3))
    } else {
        format!("{} each", span(step))
    };
    format!("{each}, {} left", span(left))
}

/// A duration as people say it.
fn span(duration: Duration) -> String {
    let s = duration.as_secs_f64().round() as u64;
    match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, min, s) if min < 10 => format!("{min} min {s} s"),
        (0, 0, min, _) => format!("{min} min"),
        (0, h, min, _) => format!("{h} h {min} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_time_left_is_that_of_the_steps_so_far_and_runs_on_between_them() {
        assert_eq!(pace(0, 50, Duration::ZERO, S * 90), "1 min 30 s so far");
        assert_eq!(pace(3, 50, S * 120, S * 120), "40 s each, 31 min left");
        assert_eq!(pace(3, 50, S * 120, S * 180), "40 s each, 30 min left");
        assert_eq!(pace(3, 4, S * 120, S * 900), "40 s each, 0 s left");
        assert_eq!(pace(10, 120, S, S), "10.0 a second, 11 s left");
        assert_eq!(pace(50, 50, S * 50, S * 50), "1 s each, 0 s left");
    }

    #[test]
    fn a_stage_that_has_no_pace_yet_is_only_named() {
        let at = |done| Progress { stage: "denoise, part 2", done, total: 50 };
        assert_eq!(line(at(0), Duration::ZERO), "denoise, part 2 begins");
        assert_eq!(line(at(1), S * 300), "denoise, part 2 1/50, 5 min 0 s each, 4 h 5 min left");
    }

    #[test]
    fn spans_are_told_in_two_units_at_most() {
        let told = [0, 59, 61, 600, 3599, 3600, 86_399, 90_000].map(|s| span(S * s));
        assert_eq!(
            told,
            ["0 s", "59 s", "1 min 1 s", "10 min", "59 min", "1 h 0 min", "23 h 59 min", "1 d 1 h"]
        );
    }
}
