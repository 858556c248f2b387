//! How far a run is, as one line of text: which part of its work is done, how fast it makes calls,
//! and how long the rest will take at that rate. Only lays out figures, which it does not trust.

use std::time::Duration;

use crate::lab::Totals;

/// A run that is over before shows nothing.
pub(super) const DELAY: Duration = Duration::from_secs(2);

/// The longest rest that is worth saying.
const LONGEST_REST: Duration = Duration::from_secs(7 * 24 * 3600);

/// How far a run is at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HowFar {
    /// CPUs that are online, if the guest can say so.
    pub online: Option<u32>,
    /// Calls made.
    pub made: u64,
    /// Pieces of work done, and planned; 0 if the guest does not count them.
    pub done: u64,
    pub planned: u64,
}

impl HowFar {
    /// What the guest has counted.
    pub fn of(totals: &Totals, online: Option<u32>) -> Self {
        Self {
            online,
            made: totals.made,
            done: totals.counts.done,
            planned: totals.counts.planned,
        }
    }

    fn has_begun(&self) -> bool {
        self.made > 0 || self.done > 0
    }
}

/// The line of one run.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// When work was seen first, and how much was done by then.
    begun: Option<(Duration, HowFar)>,
}

impl Line {
    /// Renders `now`, `time` after the start, for a terminal of so many columns.
    pub fn render(&mut self, now: &HowFar, vcpus: u32, time: Duration, columns: u16) -> String {
        let mut parts = vec![format!("{:.0} s", time.as_secs_f64().floor())];
        if now.has_begun() {
            let (since, first) = *self.begun.get_or_insert((time, *now));
            let rate = |now: u64, first: u64| {
                let elapsed = time.saturating_sub(since).as_secs_f64();
                let count = now.checked_sub(first)? as f64;
                (elapsed > 0.0 && count > 0.0).then_some(count / elapsed)
            };
            // A guest can do more than it has planned, or say that it does.
            let rest = now
                .planned
                .checked_sub(now.done)
                .filter(|_| now.planned > 0);
            if rest.is_some() {
                let percent = now.done as f64 / now.planned as f64 * 100.0;
                parts.push(format!("{:.0} % done", percent.floor()));
            }
            if now.made > 0 {
                parts.push(format!("{} calls made", now.made));
                parts.extend(rate(now.made, first.made).map(|rate| format!("{rate:.0} calls/s")));
            }
            let left = rest
                .zip(rate(now.done, first.done))
                .map(|(rest, rate)| rest as f64 / rate);
            let left = left.filter(|left| *left < LONGEST_REST.as_secs_f64());
            parts.extend(left.map(|left| format!("about {} left", rounded(left))));
        } else if let Some(online) = now.online {
            parts.push(format!("{} of {vcpus} CPUs up", online.min(vcpus)));
        } else {
            parts.push(format!("{vcpus} vCPUs"));
        }
        let width = usize::from(columns).saturating_sub(1);
        parts.join(", ").chars().take(width).collect()
    }
}

/// A time that is not known more exactly than this.
fn rounded(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{:.0} s", seconds.ceil()),
        ..7200.0 => format!("{:.0} min", (seconds / 60.0).ceil()),
        _ => format!("{:.0} h", (seconds / 3600.0).ceil()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn how_far(made: u64, done: u64, planned: u64) -> HowFar {
        HowFar {
            online: Some(4),
            made,
            done,
            planned,
        }
    }

    fn at(line: &mut Line, seconds: u64, now: HowFar) -> String {
        line.render(&now, 16, Duration::from_secs(seconds), 100)
    }

    #[test]
    fn a_boot_says_how_many_cpus_are_up() {
        let mut line = Line::default();
        assert_eq!(at(&mut line, 3, how_far(0, 0, 0)), "3 s, 4 of 16 CPUs up");
    }

    #[test]
    fn a_plan_says_how_long_the_rest_takes() {
        let mut line = Line::default();
        assert_eq!(
            at(&mut line, 10, how_far(40, 20, 200)),
            "10 s, 10 % done, 40 calls made"
        );
        assert_eq!(
            at(&mut line, 20, how_far(240, 120, 200)),
            "20 s, 60 % done, 240 calls made, 20 calls/s, about 8 s left"
        );
        // What was done before it was first seen does not count for the rate.
        assert_eq!(
            at(&mut line, 30, how_far(440, 200, 200)),
            "30 s, 100 % done, 440 calls made, 20 calls/s, about 0 s left"
        );
    }

    #[test]
    fn without_a_plan_nothing_is_said_of_the_rest() {
        let mut line = Line::default();
        at(&mut line, 1, how_far(10, 7, 0));
        let text = at(&mut line, 2, how_far(30, 9, 0));
        assert_eq!(text, "2 s, 30 calls made, 20 calls/s");
        // More done than was planned is no plan.
        let text = at(&mut line, 3, how_far(30, 9, 8));
        assert_eq!(text, "3 s, 30 calls made, 10 calls/s");
    }

    #[test]
    fn a_guest_without_calls_says_how_far_it_is() {
        let mut line = Line::default();
        at(&mut line, 1, how_far(0, 1, 100));
        let text = at(&mut line, 11, how_far(0, 2, 100));
        assert_eq!(text, "11 s, 2 % done, about 17 min left");
    }

    proptest! {
        #[test]
        fn a_line_fits_whatever_the_guest_counts(
            first: (u64, u64, u64), then: (u64, u64, u64), time: u32, columns: u16
        ) {
            let mut line = Line::default();
            for (nth, (made, done, planned)) in (0..).zip([first, then]) {
                let time = Duration::from_millis((u64::from(time)) * nth);
                let text = line.render(&how_far(made, done, planned), 2, time, columns);
                prop_assert!(text.chars().count() < usize::from(columns).max(1));
            }
        }
    }
}
