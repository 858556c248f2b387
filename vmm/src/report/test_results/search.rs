//! The results of a search and of a replay: whether it came to what the case, or the schedule,
//! says.

use std::time::Duration;

use super::{CameTo, Suite, Test, VERDICT};
use crate::explore::result::{Document, Known, VerdictRecord};

/// The exit status of what broke, or did not break, against what was expected.
const NOT_AS_EXPECTED: u8 = 1;

/// The exit status of what was stopped by a limit, or has shown nothing.
const NOT_SHOWN: u8 = 5;

/// The result of a search in a suite called `name`, with its `verdict` in words and the exit status
/// of that. `facts` say what it has done.
pub fn of_search(
    name: String,
    document: &Document,
    (verdict, status): (&str, u8),
    facts: &[(&'static str, String)],
) -> Suite {
    let mut sentences: Vec<String> = match &document.verdict {
        VerdictRecord::Broke { texts, .. } => texts.clone(),
        VerdictRecord::Refuted { ways, .. } => {
            ways.iter().flat_map(|way| way.texts.clone()).collect()
        }
        _ => Vec::new(),
    };
    sentences.extend(document.ways.iter().flat_map(|way| way.texts.clone()));
    let against = document.conditions.iter().filter(|it| {
        it.known
            == if it.is_never {
                Known::Reached
            } else {
                Known::NotReached
            }
    });
    sentences.extend(against.map(|it| it.condition.clone()));
    let took = document.took() + document.shortening();
    // A search can also have shown nothing since it was not to try all orders.
    let is_stopped = matches!(document.verdict, VerdictRecord::Stopped { .. });
    Suite {
        date: document.provenance.as_ref().map(|it| it.date.clone()),
        seconds: took.as_secs_f64(),
        ..suite(name, verdict, (status, is_stopped), sentences, facts)
    }
}

/// The result of a replay in a suite called `name`, as in [`of_search`], which ended at `date` and
/// took `time`. `sentences` say what happened, if it is not what was to happen.
pub fn of_replay(
    name: String,
    (date, time): (String, Duration),
    (verdict, status): (&str, u8),
    sentences: Vec<String>,
    facts: &[(&'static str, String)],
) -> Suite {
    Suite {
        date: Some(date),
        seconds: time.as_secs_f64(),
        ..suite(name, verdict, (status, true), sentences, facts)
    }
}

fn suite(
    name: String,
    verdict: &str,
    (status, is_stopped): (u8, bool),
    sentences: Vec<String>,
    facts: &[(&'static str, String)],
) -> Suite {
    let said = [verdict.to_owned()].into_iter().chain(sentences.clone());
    let said = said.collect::<Vec<_>>().join(": ");
    let came_to = match status {
        0 => CameTo::Passed,
        NOT_AS_EXPECTED => CameTo::Failed(said),
        NOT_SHOWN if is_stopped => CameTo::TimedOut(said),
        _ => CameTo::Error(said),
    };
    let remarks = [verdict.to_owned()].into_iter().chain(sentences).collect();
    let facts = facts.iter().cloned();
    Suite {
        name,
        date: None,
        seconds: 0.0,
        facts: facts.map(|(name, fact)| (name.to_owned(), fact)).collect(),
        tests: vec![Test {
            remarks,
            ..Test::new(VERDICT, came_to)
        }],
    }
}
