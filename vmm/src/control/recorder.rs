//! Records what is done to a machine, when, and by whom, for its trace. What is done within
//! something else is a part of that, and not recorded again. Decides nothing.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::machine::clock;
use crate::machine::lifecycle::Stall;
use crate::stats::marks::{Actor, Mark, Marks, Ordered};

thread_local! {
    /// For whom this thread does what it does.
    static ACTOR: Cell<Actor> = const { Cell::new(Actor::Program) };
    /// Whether this thread is in the middle of something.
    static IS_BUSY: Cell<bool> = const { Cell::new(false) };
}

/// From now on the calling thread does everything for `actor`. A script and each client have a
/// thread of their own; what no thread has claimed is done for the program.
pub(in crate::control) fn act_for(actor: Actor) {
    ACTOR.set(actor);
}

/// Most that is recorded; more is only counted. A guest cannot do anything that is recorded.
const MOST: usize = 1 << 16;

/// Longest text of a mark, in characters: what a script prints can be a megabyte.
const LONGEST: usize = 400;

/// What was done to one machine.
#[derive(Debug)]
pub(in crate::control) struct Recorder {
    /// `None` if nothing is to be recorded.
    marks: Option<Mutex<Marks>>,
}

impl Recorder {
    /// A recorder that records, or does not.
    pub fn new(records: bool) -> Self {
        Self {
            marks: records.then(Mutex::default),
        }
    }

    /// Something begins, which is over when the result is dropped.
    pub fn begin(&self, text: impl FnOnce() -> String) -> Doing<'_> {
        self.begin_ordering(None, text)
    }

    /// Something begins that orders a stall of a vCPU, or of all.
    pub fn order(
        &self,
        cpu: impl Into<Option<u32>>,
        stall: Stall,
        text: impl FnOnce() -> String,
    ) -> Doing<'_> {
        let cpu = cpu.into();
        self.begin_ordering(Some(Ordered { cpu, stall }), text)
    }

    fn begin_ordering(&self, ordered: Option<Ordered>, text: impl FnOnce() -> String) -> Doing<'_> {
        let is_outermost = self.marks.is_some() && !IS_BUSY.replace(true);
        let from = clock::now();
        let mark = is_outermost.then(|| Mark {
            from,
            to: from,
            by: ACTOR.get(),
            text: short(text()),
            ordered,
        });
        Doing {
            recorder: self,
            mark,
        }
    }

    /// Notes the stall that `by` has ordered just now.
    pub fn note(&self, by: Actor, cpu: u32, stall: Stall, text: impl FnOnce() -> String) {
        if self.marks.is_none() {
            return;
        }
        let (now, cpu) = (clock::now(), Some(cpu));
        self.keep(Mark {
            from: now,
            to: now,
            by,
            text: text(),
            ordered: Some(Ordered { cpu, stall }),
        });
    }

    /// What was recorded, by when it began.
    pub fn take(&self) -> Marks {
        let mut marks = self
            .marks()
            .map_or_else(Marks::default, |mut it| std::mem::take(&mut *it));
        marks.list.sort_by_key(|mark| mark.from);
        marks
    }

    fn keep(&self, mark: Mark) {
        let Some(mut marks) = self.marks() else {
            return;
        };
        if marks.list.len() < MOST {
            marks.list.push(mark);
        } else {
            marks.dropped += 1;
        }
    }

    fn marks(&self) -> Option<MutexGuard<'_, Marks>> {
        let marks = self.marks.as_ref()?;
        Some(marks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn short(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Something that is being done, until this is dropped.
#[derive(Debug)]
#[must_use]
pub(in crate::control) struct Doing<'a> {
    recorder: &'a Recorder,
    mark: Option<Mark>,
}

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        if let Some(mark) = self.mark.take() {
            IS_BUSY.set(false);
            let to = clock::now().max(mark.from);
            self.recorder.keep(Mark { to, ..mark });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_within_something_else_is_a_part_of_it() {
        let recorder = Recorder::new(true);
        act_for(Actor::Script(4));
        {
            let _all = recorder.order(None, Stall::Paused, || "all".to_owned());
            drop(recorder.begin(|| unreachable!("it is a part of the other")));
            // Another thread does something of its own meanwhile.
            std::thread::scope(|scope| {
                scope.spawn(|| drop(recorder.begin(|| "other".to_owned())));
            });
        }
        act_for(Actor::Program);
        drop(recorder.begin(|| "last".to_owned()));
        let marks = recorder.take();
        let shown = marks.list.iter().map(|it| (&*it.text, it.by));
        let shown: Vec<_> = shown.collect();
        let program = Actor::Program;
        assert_eq!(
            shown,
            [
                ("all", Actor::Script(4)),
                ("other", program),
                ("last", program)
            ]
        );
        let [all, other, last] = &marks.list[..] else {
            panic!("three of them");
        };
        assert!(all.from <= other.from && other.to <= all.to && all.to <= last.from);
        assert_eq!(all.ordered.map(|it| it.cpu), Some(None));
    }

    #[test]
    fn a_recorder_that_is_off_does_not_even_make_the_text() {
        let recorder = Recorder::new(false);
        act_for(Actor::Client(1));
        drop(recorder.begin(|| unreachable!("nobody reads it")));
        assert_eq!(recorder.take(), Marks::default());
    }

    #[test]
    fn texts_and_their_number_have_a_bound() {
        let recorder = Recorder::new(true);
        drop(recorder.begin(|| "ä".repeat(2 * LONGEST)));
        for _ in 0..MOST {
            recorder.note(Actor::Steal, 0, Stall::Paused, String::new);
        }
        let marks = recorder.take();
        assert_eq!(marks.list[0].text.chars().count(), LONGEST + 1);
        assert_eq!((marks.list.len(), marks.dropped), (MOST, 1));
    }
}
