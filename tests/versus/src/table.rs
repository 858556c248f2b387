//! The figures for people: how fast each explorer searches, how long each takes to find what is
//! broken, and what these numbers do not say. Lays out what [`crate::measure`] has measured.

use std::fmt::{self, Write};

use comfy_table::{CellAlignment, Table};
use indicatif::HumanCount;
use vmm::table_style::RULED;

use crate::measure::{Effort, Figures, Queues, SearchRun, Searcher};
use crate::search::SearchResult;

/// Renders `figures`.
pub fn render(figures: &Figures, queues: Queues, effort: Effort) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "{}\n\n{}\n\n{}\n\n{}\n\n{WHAT_IT_MEANS}",
        rates(&figures.rates),
        format_args!(
            "queue={}, in which nothing breaks, for {} s each. In the middle of {} rounds, and \
             from the lowest to the highest.\n×vmm: schedules/s over those of vmm by the same \
             strategy right before.",
            queues.sound.name(),
            effort.each.as_secs_f64(),
            effort.rounds,
        ),
        hunts(&figures.hunts),
        format_args!(
            "queue={}, which is broken: until that has shown, or for {} s. vmm's seconds are with \
             boot and learning what CPUs share;\nwhat it learns from are no schedules here, \
             unless one breaks something.",
            queues.broken.name(),
            effort.hunt.as_secs_f64(),
        ),
    );
    text
}

const WHAT_IT_MEANS: &str = "\
    shuttle switches fibres of one process, at every atomic access of the source, and begins \
    each schedule anew; a step\n\
    is one choice of a fibre, and states it does not know. vmm explore runs the machine code of \
    the guest image on\n\
    vCPUs, stops them where what they do can matter to others, takes interrupts where interrupts \
    are on, and goes back\n\
    to any state. A step of vmm goes from one such stop to the next, so that it has fewer of \
    them in a schedule; of\n\
    races and exhaustive a schedule ends where it comes to a known state, and each state counts \
    once. Schedules of one\n\
    are thus not schedules of the other, and of the two only vmm ever says that it has tried \
    all.\n";

fn rates(runs: &[SearchRun]) -> Table {
    let mut table = table([
        "by",
        "strategy",
        "schedules/s",
        "steps/s",
        "states/s",
        "×vmm",
    ]);
    for searcher in searchers(runs) {
        let rate = |count: fn(&SearchResult) -> Option<u64>| {
            Spread::of(results(runs, searcher).filter_map(|result| {
                let rate = count(result)? as f64 / result.seconds;
                Some(Sample::exactly(rate))
            }))
        };
        let times = Spread::of(runs.windows(2).filter_map(|pair| {
            let [before, run] = [&pair[0], &pair[1]];
            let are_neighbours = run.searcher == searcher
                && before.searcher.by() != searcher.by()
                && before.searcher.strategy() == searcher.strategy();
            let pace = |result: &SearchResult| result.schedules as f64 / result.seconds;
            are_neighbours.then(|| Sample::exactly(pace(&run.result) / pace(&before.result)))
        }));
        table.add_row([
            searcher.by().to_owned(),
            searcher.strategy().to_owned(),
            shown(rate(|result| Some(result.schedules))),
            shown(rate(|result| Some(result.steps))),
            shown(rate(|result| result.states)),
            shown(times),
        ]);
    }
    table
}

fn hunts(runs: &[SearchRun]) -> Table {
    let mut table = table(["by", "strategy", "found", "schedules", "steps", "seconds"]);
    for searcher in searchers(runs) {
        let sample = |of: fn(&SearchResult) -> f64| {
            Spread::of(results(runs, searcher).map(|result| Sample {
                value: of(result),
                at_least: result.broke.is_none(),
            }))
        };
        let found = results(runs, searcher)
            .filter(|result| result.broke.is_some())
            .count();
        table.add_row([
            searcher.by().to_owned(),
            searcher.strategy().to_owned(),
            format!("{found} of {}", results(runs, searcher).count()),
            shown(sample(|result| result.schedules as f64)),
            shown(sample(|result| result.steps as f64)),
            shown(sample(|result| result.seconds)),
        ]);
    }
    table
}

fn table(header: [&str; 6]) -> Table {
    let mut table = Table::new();
    table.load_style(RULED);
    table.set_header(header);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Each searcher once, in the order in which they were first gone.
fn searchers(runs: &[SearchRun]) -> Vec<Searcher> {
    let mut searchers = Vec::new();
    for run in runs {
        if !searchers.contains(&run.searcher) {
            searchers.push(run.searcher);
        }
    }
    searchers
}

fn results(runs: &[SearchRun], searcher: Searcher) -> impl Iterator<Item = &SearchResult> {
    let of = runs.iter().filter(move |run| run.searcher == searcher);
    of.map(|run| &run.result)
}

fn shown(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |spread| spread.to_string())
}

/// A figure, or only a bound of it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    value: f64,
    /// It is this or more: it was not waited for.
    at_least: bool,
}

impl Sample {
    fn exactly(value: f64) -> Self {
        Self {
            value,
            at_least: false,
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at_least {
            f.write_char('>')?;
        }
        // Three digits, which is more than a busy host can repeat.
        let value = self.value;
        let magnitude = value.max(1e-2).log10().floor();
        if value.fract() == 0.0 && value < 1000.0 {
            write!(f, "{value}")
        } else if magnitude < 2.0 {
            write!(f, "{value:.*}", (2.0 - magnitude) as usize)
        } else {
            let unit = 10_f64.powf(magnitude - 2.0);
            HumanCount(((value / unit).round() * unit) as u64).fmt(f)
        }
    }
}

/// How the figures of several rounds are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    low: Sample,
    middle: Sample,
    high: Sample,
}

impl Spread {
    /// Of as many as there are; of an even number, the middle is the upper one.
    fn of(samples: impl Iterator<Item = Sample>) -> Option<Self> {
        let mut sorted: Vec<_> = samples.collect();
        let key = |sample: &Sample| (sample.at_least, sample.value);
        sorted.sort_by(|one, other| {
            let (one, other) = (key(one), key(other));
            one.0.cmp(&other.0).then(one.1.total_cmp(&other.1))
        });
        Some(Self {
            low: *sorted.first()?,
            middle: sorted[sorted.len() / 2],
            high: *sorted.last()?,
        })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, middle, high } = self;
        write!(f, "{middle}")?;
        if low != high {
            write!(f, " ({low}–{high})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use guest::ipi::queue::QueueKind;

    use super::*;
    use crate::{ours, theirs};

    fn run(searcher: Searcher, seed: u64, schedules: u64, broke: bool) -> SearchRun {
        SearchRun {
            searcher,
            seed,
            result: SearchResult {
                schedules,
                steps: 10 * schedules,
                states: None,
                seconds: 2.0,
                broke: broke.then(|| vec!["lost".to_owned()]),
            },
        }
    }

    #[test]
    fn neighbours_are_compared_and_what_was_not_found_is_a_bound() {
        let (ours, theirs) = (
            Searcher::Vmm(ours::VmmStrategy::Pct),
            Searcher::Shuttle(theirs::ShuttleStrategy::Pct),
        );
        let rates = vec![
            run(ours, 1, 100, false),
            run(theirs, 1, 300, false),
            run(ours, 2, 10, false),
            run(theirs, 2, 50, false),
            run(ours, 3, 200, false),
            run(theirs, 3, 8000, false),
        ];
        let hunts = vec![
            run(ours, 1, 70, true),
            run(ours, 2, 900, false),
            run(ours, 3, 80, false),
        ];
        let queues = Queues {
            sound: QueueKind::Filo,
            broken: QueueKind::Fifo,
        };
        let effort = Effort {
            rounds: 3,
            each: Duration::from_secs(2),
            hunt: Duration::from_secs(9),
        };
        let text = render(&Figures { rates, hunts }, queues, effort);
        for what in [
            "50 (5–100)",
            "150 (25–4,000)",
            "5 (3–40)",
            "1 of 3",
            ">80 (70–>900)",
            "queue=fifo, which is broken: until that has shown, or for 9 s",
        ] {
            assert!(text.contains(what), "no {what} in\n{text}");
        }
    }

    #[test]
    fn of_nothing_there_is_no_spread() {
        assert_eq!(Spread::of([].into_iter()), None);
        let one = Spread::of([Sample::exactly(1.0)].into_iter()).unwrap();
        assert_eq!(one.to_string(), "1");
    }

    #[test]
    fn three_digits_are_shown() {
        for (value, text) in [
            (0.0, "0"),
            (0.00047, "0.0005"),
            (0.0107, "0.0107"),
            (0.9971, "0.997"),
            (7.126, "7.13"),
            (14.28, "14.3"),
            (999.4, "999"),
            (1234.5, "1,230"),
            (2_301_886.0, "2,300,000"),
        ] {
            assert_eq!(Sample::exactly(value).to_string(), text);
        }
    }
}
