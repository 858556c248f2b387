//! What a search came to, for people: by one process or by several.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use vmm::explore::case::Case;
use vmm::explore::result::{Came, Destination, Document, Part};
use vmm::explore::schedule::Schedule;
use vmm::explore::search::Why;
use vmm::explore::story::{Story, tell};
use vmm::explore::{Replay, Shard};
use vmm::provenance::Provenance;
use vmm::report::page::story::{self as page, Document as Page};

use super::interruption::{self, interrupted};
use super::{Refused, cannot_write, chain, check_output, complain};

/// The search ended before it had shown anything.
const NOT_SHOWN: u8 = 5;

/// Where all is to go, besides standard output. Made before the search: one of an hour should not end with a file
/// that cannot be made.
#[derive(Debug)]
pub struct Files {
    /// The schedule that was found, if one was.
    pub schedule: Option<File>,
    /// The page.
    pub page: Option<File>,
    /// The result.
    pub result: Option<Destination>,
}

/// Makes the files for a result, if one is asked for.
///
/// # Errors
/// [`Refused`] if they cannot be made, or would be one of `inputs`.
pub fn destination<'a>(
    path: Option<&Path>,
    inputs: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<Option<Destination>, Refused> {
    let Some(path) = path else { return Ok(None) };
    check_output(path, inputs)?;
    let made = Destination::new(path).map_err(|error| cannot_write(path, &error))?;
    Ok(Some(made))
}

/// Prints and writes what came out, with the story of what broke if `guest` is there to run it on. Returns the
/// exit status.
///
/// # Errors
/// [`Refused`] if what broke cannot be told.
pub fn show(part: &Part, guest: Option<&Path>, files: Files) -> Result<u8, Refused> {
    let document = &part.document;
    let mut status = 0;
    let mut complain_of = |what, error| {
        complain(&format!("cannot write the {what}: {error}"));
        status = 3;
    };
    // First, what must not be lost with the rest.
    if let Some(destination) = files.result {
        destination
            .write(part)
            .unwrap_or_else(|error| complain_of("result", error));
    }
    let schedule = match &document.verdict {
        Came::Broke { schedule, .. } => Some(&**schedule),
        _ => None,
    };
    if let (Some(schedule), Some(file)) = (schedule, files.schedule) {
        write(file, schedule).unwrap_or_else(|error| complain_of("schedule", error));
    }
    let story = schedule.zip(guest);
    let story = story.map(|(schedule, guest)| told(schedule, guest));
    let story = story.transpose()?;
    let (verdict, own) = if document.shard == Shard::WHOLE {
        judge(document)?
    } else {
        judge_shard(document)
    };
    let origin = document.provenance.as_ref().map(Provenance::facts);
    let origin = origin.unwrap_or_default().into_iter();
    let searched: Vec<_> = origin.chain(searched(document)).collect();
    print(story.as_ref(), &searched, &verdict).unwrap_or_else(|error| complain_of("report", error));
    if let (Some(file), Some(guest)) = (files.page, guest) {
        let of = &document.of;
        let page = Page {
            verdict: &verdict,
            is_good: own == 0,
            guest: guest.display().to_string(),
            facts: [
                ("options", options(document)?),
                ("granularity", of.granularity.to_string()),
            ]
            .into_iter()
            .chain(searched)
            .collect(),
            case: &of.case,
            schedule,
            story: story.as_ref(),
        };
        write_page(file, &page).unwrap_or_else(|error| complain_of("page", error));
    }
    Ok(if own == 0 { status } else { own })
}

fn write(file: File, schedule: &Schedule) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut out, schedule)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes the page on a schedule to `file`.
pub fn write_page(file: File, page: &Page<'_>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    page::write(&mut out, page)?;
    out.flush()
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
fn searched(document: &Document) -> Vec<(&'static str, String)> {
    let counts = &document.counts;
    let seconds = document.took().as_secs_f64();
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
    let (words, contended) = document.sharing.size();
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

fn case(document: &Document) -> Result<Case, Refused> {
    Case::parse(&document.of.case).map_err(|error| Refused {
        message: format!("the case of the result: {error}"),
        status: 2,
    })
}

/// All that the guest was given.
fn options(document: &Document) -> Result<String, Refused> {
    let words = format!("{} {}", case(document)?.append, document.of.append);
    Ok(words.trim().to_owned())
}

/// What the whole search came to, and the status for it.
fn judge(document: &Document) -> Result<(String, u8), Refused> {
    let case = case(document)?;
    let options = options(document)?;
    let names = case.expected(&options);
    let expected = match names {
        [] => "nothing to break".to_owned(),
        names => names.join(" or "),
    };
    // What breaks can take more than was tried.
    let unless_expected = if names.is_empty() { 0 } else { NOT_SHOWN };
    Ok(match &document.verdict {
        Came::Broke { names: broke, .. } => {
            let is_expected = broke.iter().any(|name| names.contains(name));
            let broke = broke.join(", ");
            if is_expected {
                (format!("as expected: {broke}"), 0)
            } else {
                (format!("broken: {broke} (expected: {expected})"), 1)
            }
        }
        Came::Complete if names.is_empty() => {
            ("complete: no order of steps breaks anything".to_owned(), 0)
        }
        Came::Complete => (
            format!("complete: no order of steps breaks anything (expected: {expected})"),
            1,
        ),
        Came::BoundedComplete { preemptions } => (
            format!("no order with {preemptions} preemptions or fewer breaks anything"),
            unless_expected,
        ),
        Came::Sampled { runs } => (
            format!("none of {runs} orders broke anything, which says nothing of the others"),
            unless_expected,
        ),
        Came::Stopped { why } => stopped(*why),
    })
}

/// What one shard of several came to. Whether that is as expected, only all together show.
fn judge_shard(document: &Document) -> (String, u8) {
    let shard = document.shard;
    match &document.verdict {
        Came::Broke { names, .. } => (format!("shard {shard}: {}", names.join(", ")), 0),
        Came::Stopped { why } => {
            let (text, status) = stopped(*why);
            (format!("shard {shard}: {text}"), status)
        }
        _ => (
            format!("shard {shard}: done, and nothing broke; vmm merge puts all together"),
            0,
        ),
    }
}

fn stopped(why: Why) -> (String, u8) {
    let reason = match why {
        Why::Time => "the time was up (--time-limit)",
        Why::States => "there were too many states (--max-states)",
        Why::Signal => "a signal came",
    };
    let status = match why {
        Why::Signal if interrupted() => interruption::status(),
        _ => NOT_SHOWN,
    };
    (
        format!("not shown: {reason}, and nothing had broken by then"),
        status,
    )
}

/// The schedule as a story.
fn told(schedule: &Schedule, guest: &Path) -> Result<Story, Refused> {
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
