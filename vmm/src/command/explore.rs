//! `vmm explore CASE GUEST`: searches the orders of a case's steps for one that breaks something.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use vmm::explore::case::Case;
use vmm::explore::schedule::{Granularity, Schedule};
use vmm::explore::search::sampled::Way;
use vmm::explore::search::{Counts, Why};
use vmm::explore::story::{Story, tell};
use vmm::explore::{Config, Outcome, Replay, Shard, Strategy, Verdict, explore, is_possible};
use vmm::report::page::story::{self as page, Document};

use super::interruption::{self, interrupted};
use super::{Refused, chain, complain, create};

/// What to explore, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The case: how many CPUs, what each does, what must come out; see docs/exploration.md
    case: PathBuf,

    /// Guest image; one built to be explored (target/explore.bin) for every granularity but probe
    guest: PathBuf,

    /// More words for the guest, such as queue=fifo
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        hide_default_value = true
    )]
    append: String,

    /// Where CPUs stop so that others can go on
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = Granularity::Access)]
    granularity: Granularity,

    /// How orders are chosen
    #[arg(long, value_name = "HOW", value_enum, default_value_t = How::Auto)]
    strategy: How,

    /// Most preemptions of bounded, and of auto before it tries every order
    #[arg(long, value_name = "N", default_value_t = 1)]
    preemptions: u32,

    /// Orders that random and pct try
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    runs: u64,

    /// Times that pct changes priorities
    #[arg(long, value_name = "N", default_value_t = 2)]
    changes: u32,

    /// Steps within which pct does so, about as many as a run has
    #[arg(long, value_name = "N", default_value_t = 120)]
    length: u64,

    /// Where chance comes from; equal seeds make equal choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Stop after this time [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = super::run::seconds)]
    time_limit: Option<Duration>,

    /// Stop when so many states have been seen [default: no limit]
    #[arg(long, value_name = "N")]
    max_states: Option<u64>,

    /// Write the schedule that breaks something here, for vmm replay
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,

    /// Write a page for a browser here, with a diagram of that schedule. See docs/reports.md
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// `--strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    /// All orders with few preemptions, then all that can matter
    Auto,
    /// All orders that can matter
    Races,
    /// All orders
    Exhaustive,
    /// All orders with at most --preemptions
    Bounded,
    /// --runs orders by priorities that change a few times
    Pct,
    /// --runs orders at random
    Random,
}

/// What is left of the time that a found schedule may be made shorter in.
const SHRINK: Duration = Duration::from_secs(20);

impl Arguments {
    fn config(&self, case: Case) -> Config {
        Config {
            guest: self.guest.clone(),
            case,
            append: self.append.clone(),
            granularity: self.granularity,
            strategy: match self.strategy {
                How::Auto => Strategy::Auto(self.preemptions),
                How::Races => Strategy::Races,
                How::Exhaustive => Strategy::Exhaustive,
                How::Bounded => Strategy::Bounded(self.preemptions),
                How::Pct => {
                    let way = Way::Priorities {
                        changes: self.changes,
                        length: self.length,
                    };
                    Strategy::Sampled(way, self.runs)
                }
                How::Random => Strategy::Sampled(Way::Uniform, self.runs),
            },
            seed: self.seed,
            time: self.time_limit,
            states: self.max_states,
            shard: Shard::WHOLE,
            shrink: SHRINK,
        }
    }
}

/// The search ended before it had shown anything.
const NOT_SHOWN: u8 = 5;

/// Explores what `arguments` ask for, and returns the exit status.
///
/// # Errors
/// [`Refused`] if that was not possible.
pub fn run(arguments: &Arguments) -> Result<u8, Refused> {
    let case = read_case(&arguments.case)?;
    // Opened first: a search of an hour should not end with a file that cannot be made.
    let open = |name: &PathBuf| create(name, [&arguments.case, &arguments.guest]);
    let file = arguments.schedule.as_ref().map(open).transpose()?;
    let page_file = arguments.report.as_ref().map(open).transpose()?;
    interruption::catch().map_err(|error| Refused {
        message: format!("cannot catch signals: {error}"),
        status: 3,
    })?;
    let config = arguments.config(case);
    if !is_possible(config.strategy, config.granularity) {
        let why = "with --granularity instruction only --strategy random and pct are possible: \
                   between two instructions a CPU can be in states that are not kept";
        return Err(Refused {
            message: why.to_owned(),
            status: 2,
        });
    }
    let bar = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {elapsed} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    let outcome = explore(&config, interrupted, &mut |counts| {
        bar.set_message(progress(counts, bar.elapsed()));
        bar.tick();
    });
    bar.finish_and_clear();
    let outcome = outcome.map_err(|error| Refused {
        message: chain(&error),
        status: error.exit_status(),
    })?;
    let schedule = match &outcome.verdict {
        Verdict::Broke { schedule, .. } => Some(&**schedule),
        _ => None,
    };
    let mut status = 0;
    let mut complain_of = |what, error| {
        complain(&format!("cannot write the {what}: {error}"));
        status = 3;
    };
    if let (Some(schedule), Some(file)) = (schedule, file) {
        write(file, schedule).unwrap_or_else(|error| complain_of("schedule", error));
    }
    let story = schedule.map(|schedule| told(schedule, &arguments.guest));
    let story = story.transpose()?;
    let (verdict, own) = verdict(&outcome);
    let searched = searched(&outcome);
    print(story.as_ref(), &searched, &verdict).unwrap_or_else(|error| complain_of("result", error));
    if let Some(file) = page_file {
        let document = Document {
            verdict: &verdict,
            is_good: own == 0,
            guest: arguments.guest.display().to_string(),
            facts: [
                ("options", outcome.options.clone()),
                ("granularity", config.granularity.to_string()),
            ]
            .into_iter()
            .chain(searched)
            .collect(),
            case: &config.case.to_string(),
            schedule,
            story: story.as_ref(),
        };
        write_page(file, &document).unwrap_or_else(|error| complain_of("page", error));
    }
    Ok(if own == 0 { status } else { own })
}

fn read_case(path: &PathBuf) -> Result<Case, Refused> {
    let name = path.display();
    let bad = |message| Refused { message, status: 2 };
    let text =
        fs::read_to_string(path).map_err(|error| bad(format!("cannot read {name}: {error}")))?;
    Case::parse(&text).map_err(|error| bad(format!("{name}: {error}")))
}

fn write(file: File, schedule: &Schedule) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut out, schedule)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes the page on a schedule to `file`.
pub fn write_page(file: File, document: &Document<'_>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    page::write(&mut out, document)?;
    out.flush()
}

fn progress(counts: &Counts, elapsed: Duration) -> String {
    let rate = counts.transitions as f64 / elapsed.as_secs_f64().max(0.001);
    format!(
        "{} states, {} schedules, {rate:.0} steps/s, depth {} of {}{}",
        counts.states,
        counts.schedules,
        counts.depth,
        counts.deepest,
        match counts.begun_anew {
            0 => String::new(),
            times => format!(", begun anew {times} times"),
        }
    )
}

/// Prints what came out.
fn print(
    story: Option<&Story>,
    searched: &[(&'static str, String)],
    verdict: &str,
) -> io::Result<()> {
    let mut text = story.map_or_else(String::new, |story| format!("{story}\n"));
    for (name, figures) in searched {
        text += &format!("{name:<10} {figures}\n");
    }
    text += &format!("\n{verdict}\n");
    io::stdout().write_all(text.as_bytes())
}

/// What the search did, each part with its name.
fn searched(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let counts = &outcome.counts;
    let seconds = outcome.time.as_secs_f64();
    let mut searched = vec![(
        "searched",
        format!(
            "{} states, {} of them ends, {} steps in {seconds:.1} s ({:.0} steps/s), the longest way {} steps",
            counts.states,
            counts.ends,
            counts.transitions,
            counts.transitions as f64 / seconds.max(0.001),
            counts.deepest
        ),
    )];
    let (words, contended) = outcome.words;
    if words > 0 {
        searched.push((
            "memory",
            format!(
                "{words} words are accessed, and on {contended} of them CPUs can get in each other's way"
            ),
        ));
    }
    searched
}

/// What it came to in a sentence, and the exit status that says so.
fn verdict(outcome: &Outcome) -> (String, u8) {
    let expected = match &outcome.expected[..] {
        [] => "nothing to break".to_owned(),
        names => names.join(" or "),
    };
    match (&outcome.verdict, outcome.is_expected()) {
        (Verdict::Broke { breach, .. }, is_expected) => {
            let broke = breach.names.join(", ");
            match is_expected {
                Some(true) => (format!("as expected: {broke}"), 0),
                _ => (format!("broken: {broke} (expected: {expected})"), 1),
            }
        }
        (Verdict::Complete, Some(true)) => {
            ("complete: no order of steps breaks anything".to_owned(), 0)
        }
        (Verdict::Complete, _) => (
            format!("complete: no order of steps breaks anything (expected: {expected})"),
            1,
        ),
        (Verdict::BoundedComplete(bound), is_expected) => (
            format!("no order with {bound} preemptions or fewer breaks anything"),
            if is_expected == Some(true) {
                0
            } else {
                NOT_SHOWN
            },
        ),
        (Verdict::Sampled(runs), is_expected) => (
            format!("none of {runs} orders broke anything, which says nothing of the others"),
            if is_expected == Some(true) {
                0
            } else {
                NOT_SHOWN
            },
        ),
        (Verdict::Stopped(why), _) => (
            format!(
                "not shown: {}, and nothing had broken by then",
                match why {
                    Why::Time => "the time was up (--time-limit)",
                    Why::States => "there were too many states (--max-states)",
                    Why::Signal => "a signal came",
                }
            ),
            if *why == Why::Signal {
                interruption::status()
            } else {
                NOT_SHOWN
            },
        ),
    }
}

/// The schedule as a story.
fn told(schedule: &Schedule, guest: &std::path::Path) -> Result<Story, Refused> {
    let replay = Replay {
        guest,
        schedule,
        times: 1,
        any_image: false,
    };
    let told = tell(&replay, interrupted).map_err(|error| Refused {
        message: chain(&error),
        status: error.exit_status(),
    })?;
    Ok(told.1)
}
