//! Records what is done to a machine, when, and by whom, for its trace. What is done within
//! something else is a part of that, and not recorded again. Decides nothing.

use std::cell::Cell;
use std::fmt::Display;
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
    recorded: Option<Mutex<Recorded>>,
}

#[derive(Debug, Default)]
struct Recorded {
    marks: Marks,
    /// The places of those that are not over, in the order in which they began.
    open: Vec<usize>,
    /// Whether all was taken: what is over later is not recorded.
    is_taken: bool,
}

impl Recorder {
    /// A recorder that records, or does not.
    pub fn new(records: bool) -> Self {
        Self {
            recorded: records.then(Mutex::default),
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
        let is_outermost = self.recorded.is_some() && !IS_BUSY.replace(true);
        let place = is_outermost.then(|| {
            let text = short(text());
            let from = clock::now();
            let mark = Mark {
                from,
                to: from,
                by: ACTOR.get(),
                text,
                ordered,
            };
            let mut recorded = self.recorded()?;
            let place = recorded.keep(mark)?;
            recorded.open.push(place);
            Some(place)
        });
        Doing {
            recorder: self,
            is_outermost,
            place: place.flatten(),
        }
    }

    /// Notes what `by` says just now.
    pub fn say(&self, by: Actor, text: impl FnOnce() -> String) {
        self.add(by, None, || short(text()));
    }

    /// Notes the stall that `by` has ordered just now.
    pub fn note(&self, by: Actor, cpu: u32, stall: Stall, text: impl FnOnce() -> String) {
        let cpu = Some(cpu);
        self.add(by, Some(Ordered { cpu, stall }), text);
    }

    fn add(&self, by: Actor, ordered: Option<Ordered>, text: impl FnOnce() -> String) {
        let Some(mut recorded) = self.recorded() else {
            return;
        };
        let now = clock::now();
        recorded.keep(Mark {
            from: now,
            to: now,
            by,
            text: text(),
            ordered,
        });
    }

    /// What was recorded, by when it began. What is not over, such as that the machine is being
    /// finished, ends now.
    pub fn take(&self) -> Marks {
        let Some(mut recorded) = self.recorded() else {
            return Marks::default();
        };
        let now = clock::now();
        for place in std::mem::take(&mut recorded.open) {
            recorded.end(place, now);
        }
        recorded.is_taken = true;
        let mut marks = std::mem::take(&mut recorded.marks);
        marks.list.sort_by_key(|mark| mark.from);
        marks
    }

    fn recorded(&self) -> Option<MutexGuard<'_, Recorded>> {
        let recorded = self.recorded.as_ref()?;
        Some(recorded.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Recorded {
    /// Keeps `mark`, if there is room, and returns its place.
    fn keep(&mut self, mark: Mark) -> Option<usize> {
        let place = self.marks.list.len();
        if self.is_taken {
            return None;
        }
        if place >= MOST {
            self.marks.dropped += 1;
            return None;
        }
        self.marks.list.push(mark);
        Some(place)
    }

    fn end(&mut self, place: usize, now: u64) {
        if let Some(mark) = self.marks.list.get_mut(place) {
            mark.to = now.max(mark.from);
        }
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
    is_outermost: bool,
    place: Option<usize>,
}

impl Doing<'_> {
    /// Does it. If that fails, the mark says why, and has ordered nothing.
    pub fn attempt<T, E: Display>(self, act: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let done = act();
        if let (Err(why), Some(place)) = (&done, self.place)
            && let Some(mut recorded) = self.recorder.recorded()
            && let Some(mark) = recorded.marks.list.get_mut(place)
        {
            mark.text = short(format!("{}: {why}", mark.text));
            mark.ordered = None;
        }
        done
    }
}

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        if self.is_outermost {
            IS_BUSY.set(false);
        }
        let Some(place) = self.place else { return };
        if let Some(mut recorded) = self.recorder.recorded() {
            let now = clock::now();
            recorded.open.retain(|it| *it != place);
            recorded.end(place, now);
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
        // What begins once all was taken is recorded nowhere.
        drop(recorder.begin(|| "late".to_owned()));
        assert_eq!(recorder.take(), Marks::default());
        let [all, other, last] = &marks.list[..] else {
            panic!("three of them");
        };
        assert!(all.from <= other.from && other.to <= all.to && all.to <= last.from);
        assert_eq!(all.ordered.map(|it| it.cpu), Some(None));
    }

    #[test]
    fn what_failed_says_so_and_has_ordered_nothing() {
        let recorder = Recorder::new(true);
        let pause = |cpu: u32| {
            let doing = recorder.order(cpu, Stall::Paused, || format!("pauses CPU {cpu}"));
            let is_there = cpu < 2;
            doing.attempt(|| is_there.then_some(()).ok_or("there is no vCPU 9"))
        };
        assert_eq!(pause(1), Ok(()));
        assert_eq!(pause(9), Err("there is no vCPU 9"));
        let marks = recorder.take();
        let shown: Vec<_> = marks.list.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(shown, ["pauses CPU 1", "pauses CPU 9: there is no vCPU 9"]);
        let orders: Vec<_> = marks.list.iter().map(|it| it.ordered.is_some()).collect();
        assert_eq!(orders, [true, false]);
    }

    #[test]
    fn what_is_not_over_when_all_is_taken_ends_there() {
        let recorder = Recorder::new(true);
        let doing = recorder.begin(|| "finishes".to_owned());
        let before = clock::now();
        let marks = recorder.take();
        drop(doing);
        assert_eq!(marks.list.len(), 1);
        assert!(marks.list[0].from <= before && before <= marks.list[0].to);
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
