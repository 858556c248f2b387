//! How far a search, a bench or a replay is, as one line on the terminal. The line appears when the
//! work has taken longer than [`DELAY`], and never where nobody can see it.

use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vmm::confinement::{self, ThreadKind};
use vmm::control_characters::spell_out;
use vmm::explore::Progress;
use vmm::explore::search::Counts;

use super::log;
use super::screen::can_draw;

/// Whether progress is to be shown.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wanted {
    /// Show no progress. It is shown only on a terminal, when something takes longer than two
    /// seconds
    #[arg(long)]
    quiet: bool,
}

impl Wanted {
    /// Whether it is to be shown: standard error is a terminal that can be drawn on, and nothing
    /// else is written there.
    pub fn is_shown(self) -> bool {
        !self.quiet && !log::is_on() && can_draw()
    }
}

/// Work that is over before shows nothing.
const DELAY: Duration = Duration::from_secs(2);

/// How often the line is drawn, whether there is news or not.
const REFRESH: Duration = Duration::from_millis(250);

/// A line of progress. It is removed when this is dropped.
pub struct Line {
    bar: ProgressBar,
    begun: Instant,
    /// Shows the line when the time has come.
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    /// A line for work of which nobody knows how much it is.
    pub fn endless(wanted: Wanted) -> Self {
        Self::new(wanted, None, "{spinner} {elapsed} {wide_msg}")
    }

    /// A line for `all` pieces of work.
    pub fn of(wanted: Wanted, all: u64) -> Self {
        let template = "{bar:20} {pos} of {len}, {elapsed}, about {eta} left {wide_msg}";
        Self::new(wanted, Some(all), template)
    }

    fn new(wanted: Wanted, all: Option<u64>, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(all, ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.expect("a template that is always the same"));
        let thread = wanted.is_shown().then(|| {
            let (drop_to_end, ended) = mpsc::channel();
            let shown = bar.clone();
            let show = move || {
                confinement::enter(ThreadKind::Ticker);
                if ended.recv_timeout(DELAY) == Err(RecvTimeoutError::Timeout) {
                    shown.set_draw_target(ProgressDrawTarget::stderr());
                    shown.enable_steady_tick(REFRESH);
                }
            };
            let thread = thread::Builder::new().name("progress".to_owned());
            // Without a thread there is no progress to see, and the work goes on.
            Some((drop_to_end, thread.spawn(show).ok()?))
        });
        let thread = thread.flatten();
        Self {
            bar,
            begun: Instant::now(),
            thread,
        }
    }

    /// The time since it began.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Says that so many pieces are done.
    pub fn at(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Says this.
    pub fn say(&self, text: impl Into<String>) {
        let text = text.into();
        self.bar.set_message(spell_out(&text).into_owned());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some((drop_to_end, thread)) = self.thread.take() {
            drop(drop_to_end);
            // It does not panic: it only waits and draws.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

/// The progress of a search in words. `runs` is how many runs it will have, if that is known.
pub fn words(progress: &Progress<'_>, runs: Option<u64>, elapsed: Duration) -> String {
    match *progress {
        Progress::Searching {
            counts,
            frontier,
            before,
        } => searching(counts, frontier, runs, before.saturating_add(elapsed)),
        Progress::Shortening { turns } => format!("shortens an order of {turns} turns"),
        Progress::PointOfNoReturn { turns } => {
            format!("looks for the point of no return in {turns} turns")
        }
    }
}

/// One line about the progress of a search.
pub fn searching(
    counts: &Counts,
    frontier: Option<u64>,
    runs: Option<u64>,
    elapsed: Duration,
) -> String {
    let per_second = |count: u64| count as f64 / elapsed.as_secs_f64().max(0.001);
    let mut parts = vec![format!("{} states", counts.states)];
    parts.extend(frontier.map(|choices| format!("frontier {choices}")));
    parts.push(match runs {
        // Only such a search knows how much is left.
        Some(runs) if counts.schedules > 0 => {
            let rest = runs.saturating_sub(counts.schedules) as f64;
            let seconds = (rest / per_second(counts.schedules)).ceil();
            format!(
                "{} of {runs} schedules, about {seconds:.0} s left",
                counts.schedules
            )
        }
        _ => format!("{} schedules", counts.schedules),
    });
    parts.push(format!("{:.0} steps/s", per_second(counts.transitions)));
    parts.push(format!("depth {} of {}", counts.depth, counts.deepest));
    if counts.begun_anew > 0 {
        parts.push(format!("begun anew {} times", counts.begun_anew));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: Counts = Counts {
        states: 7,
        transitions: 100,
        entries: 110,
        schedules: 20,
        ends: 0,
        deepest: 9,
        begun_anew: 0,
        resumed: 0,
        depth: 3,
        checked: 0,
    };

    #[test]
    fn only_a_search_that_knows_its_runs_says_how_long_the_rest_takes() {
        let elapsed = Duration::from_secs(10);
        assert_eq!(
            searching(&COUNTS, Some(4), None, elapsed),
            "7 states, frontier 4, 20 schedules, 10 steps/s, depth 3 of 9"
        );
        assert_eq!(
            searching(&COUNTS, None, Some(50), elapsed),
            "7 states, 20 of 50 schedules, about 15 s left, 10 steps/s, depth 3 of 9"
        );
    }
}
