//! The lanes of those who drive a machine: what a script, a client, the program and planned stalls
//! did.

use std::borrow::Cow;

use serde::Serialize;

use super::{Steps, StringTable};
use crate::stats::marks::{Actor, Mark};
use crate::stats::trace::Trace;

/// What one of them did, ordered by when it began.
#[derive(Debug, Serialize)]
pub(super) struct Lane {
    /// The name of the lane.
    lane: String,
    #[serde(flatten)]
    steps: Steps,
    length: Vec<u64>,
}

/// The lanes of `trace`, as far as they begin before `cut`; times count from `start`.
pub(super) fn lanes(trace: &Trace, start: u64, cut: u64, words: &mut StringTable) -> Vec<Lane> {
    let lanes = trace.marks.lanes().into_iter();
    lanes
        .map(|(lane, marks)| {
            let mut steps = Steps::default();
            let mut length = Vec::new();
            for mark in marks.into_iter().filter(|mark| mark.from < cut) {
                let from = mark.from.saturating_sub(start);
                steps.add(words.add(&sentence(mark)), 0, from);
                length.push(mark.to.min(cut) - mark.from);
            }
            Lane {
                lane,
                steps,
                length,
            }
        })
        .collect()
}

fn sentence(mark: &Mark) -> Cow<'_, str> {
    match mark.by {
        Actor::Script(line) => format!("line {line}: {}", mark.text).into(),
        _ => Cow::Borrowed(&mark.text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Document;
    use super::*;
    use crate::machine::journal::Entry;
    use crate::machine::lifecycle::{Stall, State};
    use crate::stats::marks::Marks;
    use crate::stats::marks::tests::{mark, order};
    use crate::stats::timeline::Timeline;
    use crate::stats::timeline::tests::{record, trace};

    #[test]
    fn a_script_has_a_lane_and_its_stalls_its_name() {
        let became = |at, state| Entry::Became { at, state };
        let host = vec![
            became(1_050, State::Stalled(Stall::Paused)),
            became(1_200, State::Running),
            became(1_300, State::Stalled(Stall::Paused)),
            became(1_400, State::Running),
        ];
        let mut trace = trace(vec![(vec![record("run", 1_000, 7, 0)], host)]);
        trace.marks = Marks {
            list: vec![
                order(1_010, Actor::Script(3), Some(0), Stall::Paused),
                mark(1_100, 1_190, Actor::Script(4), "prints </script>"),
                order(1_250, Actor::Planned, Some(0), Stall::Paused),
                order(1_260, Actor::Steal, Some(1), Stall::Paused),
            ],
            dropped: 0,
        };
        let timeline = Timeline::new(&trace);
        let document = Document::new(&trace, &timeline, &[]).unwrap();
        let shown = |steps: &Steps| {
            let names = steps.name.iter().map(|it| document.words[*it].clone());
            names.zip(steps.from.clone()).collect::<Vec<_>>()
        };
        let [script, planned] = &document.driven[..] else {
            panic!("two lanes: {:?}", document.driven);
        };
        assert_eq!((&*script.lane, &*planned.lane), ("script", "--stall"));
        assert_eq!(
            shown(&script.steps),
            [
                ("line 3: order".to_owned(), 10),
                ("line 4: prints </script>".to_owned(), 90)
            ]
        );
        assert_eq!(script.length, [0, 90]);
        assert_eq!(
            shown(&document.cpus[0].host.steps),
            [
                ("paused (script, line 3)".to_owned(), 50),
                ("paused (--stall)".to_owned(), 250)
            ]
        );
    }
}
