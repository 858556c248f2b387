//! Shows the result of a search to people: the report on standard output, and the files that were
//! asked for. It makes no difference whether one process has searched or several.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use vmm::explore::case::Case;
use vmm::explore::data_races::DataRaces;
use vmm::explore::result::{
    ConditionRecord, Destination, Document, Known, Part, Refuted, VerdictRecord, WayRecord,
};
use vmm::explore::schedule::Schedule;
use vmm::explore::search::found::are_all_races;
use vmm::explore::specimen::{Breach, SpecimenError};
use vmm::explore::stop_reason::StopReason;
use vmm::explore::story::{Story, tell};
use vmm::explore::{ExploreError, Replay, Shard};
use vmm::machine::guest::Guest;
use vmm::provenance::Provenance;
use vmm::report::page::story::{self as page, Document as Page, Tone};
use vmm::report::test_results::of_search;
use vmm::whole_file::WholeFile;

use super::interruption::{self, interrupted};
use super::outputs::{Outputs, not_made};
use super::search_stats::Output;
use super::stats::short_name;
use super::{Refused, chain, complain};

/// The exit status of a search that stopped before it had shown anything.
const NOT_SHOWN: u8 = 5;

/// The exit status if something could not be written.
pub const NOT_WRITTEN: u8 = 3;

/// What is needed to show how something broke: the schedule is replayed for that.
#[derive(Debug, Clone, Copy)]
pub struct StoryReplay<'a> {
    /// The image on which it is replayed.
    pub guest: &'a Path,
    /// The case as it is written, with its comments, if its file is known.
    pub case: Option<&'a str>,
    /// The rest of the time that the command may take.
    pub rest: Option<Duration>,
}

/// How long the replay may take if no time is left: what was found should be shown all the same.
const REPLAY_TIME: Duration = Duration::from_secs(5);

/// The output files. They are created before the search, so that a search of an hour does not end
/// with a file that cannot be created.
#[derive(Debug)]
pub struct Files {
    /// For the schedule that was found, if one was.
    pub schedule: Option<WholeFile>,
    /// For an order that breaks nothing, if there is one.
    pub witness: Option<WholeFile>,
    /// For the page.
    pub page: Option<WholeFile>,
    /// For the result.
    pub result: Option<Destination>,
    /// For the report.
    pub stats: Output,
}

/// Creates the files for a result, if one is asked for.
///
/// # Errors
/// [`Refused`] if they cannot be created, or are an input or another output.
pub fn destination(path: Option<&Path>, outputs: &Outputs) -> Result<Option<Destination>, Refused> {
    let Some(path) = path else { return Ok(None) };
    outputs.check(path)?;
    outputs.check(&Destination::of_states(path))?;
    let made = Destination::new(path).map_err(|error| not_made(path, &error))?;
    Ok(Some(made))
}

/// The message and the exit status for `error`. A search or a replay that was stopped before it
/// began has shown nothing.
pub fn refused(error: &ExploreError) -> Refused {
    let message = chain(error);
    let ExploreError::Specimen(SpecimenError::Ended(why)) = error else {
        return Refused {
            message,
            status: error.exit_status(),
        };
    };
    Refused {
        message: format!("not shown: {message}, and the guest was not ready by then"),
        status: status_of(*why),
    }
}

/// The exit status of a search or a replay that stopped before it was through.
pub fn status_of(why: StopReason) -> u8 {
    match why {
        StopReason::Signal if interruption::has_come() => interruption::status(),
        _ => NOT_SHOWN,
    }
}

/// Prints and writes the result `part`. If something broke, and `story_replay` is given, shows how.
/// Returns the exit status.
///
/// # Errors
/// [`Refused`] if the result is inconsistent.
pub fn show(
    part: &Part,
    story_replay: Option<StoryReplay<'_>>,
    files: Files,
) -> Result<u8, Refused> {
    let document = &part.document;
    let mut status = 0;
    let mut is_untold = false;
    let mut complain_of = |what, error| {
        complain(&format!("cannot write the {what}: {error}"));
        status = NOT_WRITTEN;
    };
    // First write what must not be lost if something else fails.
    if let Some(destination) = files.result {
        destination
            .write(part)
            .unwrap_or_else(|error| complain_of("result", error));
    }
    let schedules = schedules(document);
    let schedule = schedules.first().map(|(_, schedule)| *schedule);
    if let (Some(schedule), Some(file)) = (schedule, files.schedule) {
        write(file, schedule).unwrap_or_else(|error| complain_of("schedule", error));
    }
    if let (Some(witness), Some(file)) = (&document.witness, files.witness) {
        write(file, witness).unwrap_or_else(|error| complain_of("witness", error));
    }
    let mut stories = Vec::new();
    for (heading, schedule) in schedules.iter().take(MOST_STORIES) {
        let Some(story_replay) = story_replay else {
            break;
        };
        // If the story cannot be shown, the rest of the result still is.
        match told(schedule, story_replay) {
            Ok(story) => stories.push((heading.clone(), story)),
            Err(untold) => {
                complain(&format!("cannot show how it broke: {}", untold.why));
                is_untold |= untold.is_failure;
                break;
            }
        }
    }
    let story = stories.first().map(|(_, story)| story);
    let (verdict, own) = if document.shard == Shard::WHOLE {
        judge(document)?
    } else {
        judge_shard(document)
    };
    let origin = document.provenance.as_ref().map(Provenance::facts);
    let origin = origin.unwrap_or_default().into_iter();
    let searched: Vec<_> = origin.chain(searched(document)).collect();
    let report = report(&stories, &searched, &verdict);
    let suite = || of_search(name(document), document, (&verdict, own), &searched);
    (files.stats.write(&report, suite)).unwrap_or_else(|error| complain_of("report", error));
    if let (Some(file), Some(StoryReplay { guest, case, .. })) = (files.page, story_replay) {
        let of = &document.of;
        let provenance = document.provenance.as_ref();
        let page = Page {
            verdict: &verdict,
            what: provenance
                .map_or_else(|| guest.to_string_lossy().into_owned(), Provenance::title),
            tone: match own {
                0 => Tone::Good,
                1 => Tone::Bad,
                _ => Tone::Open,
            },
            guest: guest.to_string_lossy().into_owned(),
            facts: [
                ("options", options(document)?),
                ("granularity", of.granularity.to_string()),
                ("memory", of.memory.to_string()),
            ]
            .into_iter()
            .chain(searched)
            .collect(),
            case: case.unwrap_or_else(|| schedule.map_or(&of.case, |it| &it.case)),
            schedule: story.and(schedule),
            story,
        };
        write_page(file, &page).unwrap_or_else(|error| complain_of("page", error));
    }
    let status = if is_untold { 3 } else { status };
    Ok(if own == 0 { status } else { own })
}

fn write(file: WholeFile, schedule: &Schedule) -> io::Result<()> {
    file.write(|mut out| {
        serde_json::to_writer_pretty(&mut out, schedule)?;
        out.write_all(b"\n")
    })
}

/// Writes the page on a schedule to `file`.
pub fn write_page(file: WholeFile, page: &Page<'_>) -> io::Result<()> {
    file.write(|mut out| page::write(&mut out, page))
}

/// The name of what was searched: that of the case's file.
fn name(document: &Document) -> String {
    let case = document.provenance.as_ref().and_then(|it| it.case.as_ref());
    case.map_or_else(|| "case".to_owned(), |it| short_name(Path::new(&it.name)))
}

/// The report for people.
fn report(
    stories: &[(String, Story)],
    searched: &[(&'static str, String)],
    verdict: &str,
) -> String {
    let mut text = String::new();
    for (heading, story) in stories {
        if !heading.is_empty() {
            text += &format!("{heading}\n");
        }
        text += &format!("{story}\n");
    }
    for (name, figures) in searched {
        text += &format!("{name:<10} {figures}\n");
    }
    text += &format!("\n{verdict}\n");
    text
}

/// What the search did, as names and figures.
fn searched(document: &Document) -> Vec<(&'static str, String)> {
    let counts = &document.counts;
    let seconds = document.took().as_secs_f64();
    let mut searched = vec![(
        "searched",
        format!(
            "{} states, {} of them ends, {} steps in {seconds:.1} s ({:.0} steps/s), the longest \
             way {} steps",
            counts.states,
            counts.ends,
            counts.transitions,
            counts.transitions as f64 / seconds.max(0.001),
            counts.deepest
        ),
    )];
    if counts.entries > 0 {
        let each = counts.entries as f64 / counts.transitions.max(1) as f64;
        let text = format!("{} into the guest, {each:.2} for each step", counts.entries);
        searched.push(("entries", text));
    }
    if counts.resumed > 0 {
        let times = counts.resumed;
        let text = format!("{times} times, by another process (--checkpoint)");
        searched.push(("gone on", text));
    }
    if counts.checked > 0 {
        let steps = counts.checked;
        let text = format!("{steps} steps from states met again led where they had led before");
        searched.push(("keys", text));
    }
    if let VerdictRecord::Broke {
        schedule,
        found_with,
        ..
    } = &document.verdict
    {
        let (turns, seconds) = (schedule.turns.len(), document.shortening().as_secs_f64());
        searched.push((
            "shortened",
            format!("from {found_with} turns to {turns} in {seconds:.1} s"),
        ));
    }
    searched.extend(kept(document));
    let (words, contended) = document.sharing.size();
    if words > 0 {
        searched.push((
            "memory",
            format!(
                "{words} words are accessed, and on {contended} of them CPUs can get in each \
                 other's way"
            ),
        ));
    }
    let warnings = document.warnings.iter();
    searched.extend(warnings.map(|warning| ("warning", warning.clone())));
    let answers = document.answers.iter();
    searched.extend(answers.filter_map(|answer| {
        let name = match (answer.done, &answer.refused) {
            // A search that has found what it looked for need not have come to all of them.
            (false, None) if !document.verdict.is_through() => return None,
            (false, _) => "warning",
            (true, Some(_)) => "refused",
            (true, None) => return None,
        };
        Some((name, answer.to_string()))
    }));
    searched
}

/// The most schedules that are drawn. The others are in the result.
const MOST_STORIES: usize = 8;

/// The schedule of a result that says most, if it has any.
pub fn first_schedule(document: &Document) -> Option<&Schedule> {
    let (_, schedule) = schedules(document).into_iter().next()?;
    Some(schedule)
}

/// The schedules of a result, the one that says most first, each with a heading.
fn schedules(document: &Document) -> Vec<(String, &Schedule)> {
    let broke = match &document.verdict {
        VerdictRecord::Broke { schedule, .. } => Some((String::new(), &**schedule)),
        _ => None,
    };
    let reached = |is_never| {
        let conditions = document.conditions.iter();
        let of_it = conditions.filter(move |it| it.is_never == is_never);
        of_it.filter_map(|it| Some((format!("{}:", it.condition), it.schedule.as_deref()?)))
    };
    let ways = (document.ways.iter().chain(&document.races))
        .map(|way| (format!("{}:", way.names.join(", ")), &*way.schedule));
    (broke.into_iter())
        .chain(reached(true))
        .chain(ways)
        .chain(reached(false))
        .collect()
}

/// The kinds of breaches past which the search has gone on, and the conditions that were reached.
fn kept(document: &Document) -> impl Iterator<Item = (&'static str, String)> {
    let turns = |schedule: &Schedule| {
        let (turns, changes) = (schedule.turns.len(), schedule.switches());
        format!("in {turns} turns with {changes} changes of the CPU")
    };
    let says = move |what, way: &WayRecord| {
        let (turns, from) = (turns(&way.schedule), way.found_with);
        let (names, texts) = (way.names.join(", "), way.texts.join("; "));
        (
            what,
            format!("{names} {turns} (from {from} turns): {texts}"),
        )
    };
    let ways = document.ways.iter().map(move |way| says("breaks", way));
    let races = document.races.iter().map(move |way| says("races", way));
    let reached = document.conditions.iter().filter_map(move |it| {
        let schedule = it.schedule.as_ref()?;
        Some(("reached", format!("{} {}", it.condition, turns(schedule))))
    });
    ways.chain(races).chain(reached)
}

fn case(document: &Document) -> Result<Case, Refused> {
    Case::parse(&document.of.case).map_err(|error| Refused {
        message: format!("the case of the result: {error}"),
        status: 2,
    })
}

/// All options that the guest was given.
fn options(document: &Document) -> Result<String, Refused> {
    let words = format!("{} {}", case(document)?.append, document.of.append);
    Ok(words.trim().to_owned())
}

/// The verdict of the whole search in words, and its exit status.
fn judge(document: &Document) -> Result<(String, u8), Refused> {
    let (mut text, status) = judge_breaches(document)?;
    text += &judge_races(document);
    let mut statuses = vec![status];
    for condition in &document.conditions {
        let (said, status) = judge_condition(document, condition);
        text += &format!("; {said}");
        statuses.push(status);
    }
    // What speaks against the case comes first, then what ended the search, then what is not known.
    let rank = |status: &u8| match status {
        1 => 3,
        0 => 0,
        &NOT_SHOWN => 1,
        _ => 2,
    };
    let status = statuses.into_iter().max_by_key(rank).unwrap_or(status);
    Ok((text, status))
}

/// What is known of data races, in words, if the search has looked for them and the verdict does not
/// say it.
fn judge_races(document: &Document) -> String {
    let is_breach = |way: &WayRecord| way.names.iter().any(|name| name == Breach::DATA_RACE);
    let is_through = document.verdict.is_through();
    match (document.of.data_races, document.races.len()) {
        (DataRaces::Ignored, _) => String::new(),
        (DataRaces::Breaches, _) if !is_through || document.ways.iter().any(is_breach) => {
            String::new()
        }
        (_, 0) if document.verdict == VerdictRecord::Complete => "; no data race".to_owned(),
        (_, 0) => "; no data race was met".to_owned(),
        (_, 1) => "; a data race".to_owned(),
        (_, races) if document.more_ways && !are_all_races(races) => {
            format!("; {races} data races, and more kinds than there is room for")
        }
        (_, races) => format!("; {races} data races"),
    }
}

/// What became of a condition, in words, and the exit status of that.
fn judge_condition(document: &Document, it: &ConditionRecord) -> (String, u8) {
    let what = &it.condition[it.condition.find(' ').map_or(0, |at| at + 1)..];
    let (reached, not_reached) = if it.is_never { (1, 0) } else { (0, 1) };
    match it.known {
        Known::Reached if it.is_never => (format!("reached, and must never be: {what}"), reached),
        Known::Reached => (format!("reached: {what}"), reached),
        Known::NotReached => (format!("no order reaches {what}"), not_reached),
        Known::NotReachedByThese => (
            format!("none of these orders reaches {what}"),
            if it.is_never { 0 } else { NOT_SHOWN },
        ),
        Known::Unknown => {
            let why = if !it.could_be_told {
                "later calls have taken the place of its call in the ledger"
            } else if matches!(document.verdict, VerdictRecord::Broke { .. }) {
                "the search ended with what broke; --keep-going goes on"
            } else if it.on_the_way && document.verdict.is_through() {
                "not all states on the way were tried; --strategy reference tries them"
            } else {
                "not all was tried"
            };
            (
                format!("not known whether an order reaches {what}: {why}"),
                NOT_SHOWN,
            )
        }
    }
}

/// What was tried when a search has gone on past what broke: what its verdict says of all else.
fn besides(document: &Document, cpus: u32) -> String {
    let scope = document.of.scope();
    let more = if document.more_ways {
        ", and more kinds than there is room for"
    } else {
        ""
    };
    let besides = match &document.verdict {
        VerdictRecord::Complete => format!(
            "complete ({scope}): no order of steps of these {cpus} CPUs' deeds breaks anything else \
             first"
        ),
        VerdictRecord::BoundedComplete { preemptions } => format!(
            "no order with {preemptions} preemptions or fewer breaks anything else first ({scope})"
        ),
        VerdictRecord::Sampled { runs } => {
            format!("{runs} orders were tried ({scope}), which says nothing of the others")
        }
        VerdictRecord::Stopped { why } => format!("perhaps more: {}", why.reason()),
        VerdictRecord::Broke { .. } | VerdictRecord::Refuted { .. } => String::new(),
    };
    format!("{more}; {besides}")
}

/// What broke, or did not, in words, and the exit status of that.
fn judge_breaches(document: &Document) -> Result<(String, u8), Refused> {
    let case = case(document)?;
    let options = options(document)?;
    let names = case.expected(&options);
    let expected = match names {
        [] => "nothing to break".to_owned(),
        names => names.join(" or "),
    };
    let (scope, cpus) = (document.of.scope(), case.cpus);
    let complete = format!(
        "complete ({scope}): no order of steps of these {cpus} CPUs' deeds breaks anything"
    );
    // An expected breach can need an order that was not tried.
    let unless_expected = if names.is_empty() { 0 } else { NOT_SHOWN };
    if !document.ways.is_empty() {
        let is_expected = |way: &WayRecord| way.names.iter().any(|name| names.contains(name));
        let all: BTreeSet<_> = document.ways.iter().flat_map(|way| &way.names).collect();
        let broke: Vec<_> = all.into_iter().map(String::as_str).collect();
        let (broke, besides) = (broke.join(", "), besides(document, cpus));
        return Ok(if document.ways.iter().all(is_expected) {
            (
                format!("as expected, in some order each: {broke}{besides}"),
                0,
            )
        } else {
            (
                format!("broken, in some order each: {broke} (expected: {expected}){besides}"),
                1,
            )
        });
    }
    Ok(match &document.verdict {
        VerdictRecord::Refuted { ways, stopped } => {
            let is_expected = |way: &Refuted| way.names.iter().any(|name| names.contains(name));
            let all: BTreeSet<_> = ways.iter().flat_map(|way| &way.names).collect();
            let broke: Vec<_> = all.into_iter().map(String::as_str).collect();
            let mut broke = broke.join(", ");
            if let Some(why) = stopped {
                broke += &format!(", and perhaps more: {}", why.reason());
            }
            if ways.iter().all(is_expected) {
                (format!("as expected, in some order each: {broke}"), 0)
            } else {
                (
                    format!("broken, in some order each: {broke} (expected: {expected})"),
                    1,
                )
            }
        }
        VerdictRecord::Broke { names: broke, .. } => {
            let is_expected = broke.iter().any(|name| names.contains(name));
            let broke = broke.join(", ");
            if is_expected {
                (format!("as expected: {broke}"), 0)
            } else {
                (format!("broken: {broke} (expected: {expected})"), 1)
            }
        }
        VerdictRecord::Complete if names.is_empty() => (complete, 0),
        VerdictRecord::Complete => (format!("{complete} (expected: {expected})"), 1),
        VerdictRecord::BoundedComplete { preemptions } => (
            format!("no order with {preemptions} preemptions or fewer breaks anything ({scope})"),
            unless_expected,
        ),
        VerdictRecord::Sampled { runs } => (
            format!(
                "none of {runs} orders broke anything ({scope}), which says nothing of the others"
            ),
            unless_expected,
        ),
        VerdictRecord::Stopped { why } => stopped(*why),
    })
}

/// The verdict of one of several shards in words, and its exit status. Whether it is as expected is
/// known only when all shards are merged.
fn judge_shard(document: &Document) -> (String, u8) {
    let shard = document.shard;
    match &document.verdict {
        VerdictRecord::Broke { names, .. } => (format!("shard {shard}: {}", names.join(", ")), 0),
        VerdictRecord::Stopped {
            why: why @ StopReason::Reached,
        } => (format!("shard {shard}: {}", why.reason()), 0),
        VerdictRecord::Stopped { why } => {
            let (text, status) = stopped(*why);
            (format!("shard {shard}: {text}"), status)
        }
        _ => (
            format!("shard {shard}: done, and nothing broke; vmm merge puts all together"),
            0,
        ),
    }
}

fn stopped(why: StopReason) -> (String, u8) {
    let reason = why.reason();
    if why == StopReason::Reached {
        return (format!("broken: {reason}, and nothing else by then"), 1);
    }
    (
        format!("not shown: {reason}, and nothing had broken by then"),
        status_of(why),
    )
}

/// Why the story of what broke cannot be shown.
struct Untold {
    why: String,
    /// Whether that is a failure. It is none if the replay was only stopped.
    is_failure: bool,
}

/// Replays the schedule, and returns its story.
fn told(schedule: &Schedule, story_replay: StoryReplay<'_>) -> Result<Story, Untold> {
    let replay = Replay {
        guest: &Guest::from(story_replay.guest),
        schedule,
        times: 1,
        any_image: false,
        time: story_replay.rest.map(|rest| rest.max(REPLAY_TIME)),
    };
    // A signal that has arrived by now has stopped the search, and is not to stop the replay.
    interruption::heed();
    match tell(&replay, interrupted, &mut |_| {}) {
        Ok((replayed, story)) => match replayed.stopped {
            None => Ok(story),
            Some(why) => Err(Untold {
                why: why.reason().into_owned(),
                is_failure: false,
            }),
        },
        Err(error) => Err(Untold {
            why: chain(&error),
            is_failure: !matches!(error, ExploreError::Specimen(SpecimenError::Ended(_))),
        }),
    }
}
