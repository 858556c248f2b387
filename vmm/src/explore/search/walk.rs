//! The walk that every strategy makes which goes back: depth first, with the states on the way kept
//! to be put back. What is tried from a state, and whether one is gone on from at all, is for each
//! strategy to say.

use super::{ByKey, End, Found, Hunt, Look, turn};
use crate::explore::schedule::{Choice, Turn, goes_on};
use crate::explore::specimen::{Breach, SpecimenError, State};

/// What a strategy decides on a walk.
pub trait Walker {
    /// What it keeps of a state on the way.
    type Kept;
    /// What it notes of a step, until that has led to a state.
    type Step;

    /// What to try next from `state`, of which it keeps `kept`; nothing if there is no more.
    fn next(&mut self, state: &State, kept: &mut Self::Kept) -> Option<(Choice, Self::Step)>;

    /// Comes to `state`, in which the machine is, by a step from the last of `way`, or by none to
    /// where the walk begins. Counts it if it is new.
    fn enter(
        &mut self,
        hunt: &mut Hunt<'_>,
        way: &mut [Frame<Self::Kept>],
        state: &State,
        by: Option<Self::Step>,
    ) -> Entry<Self::Kept>;

    /// Goes back from a state, behind which all was tried, to the last of `way`, which led there.
    fn leave(&mut self, _way: &mut [Frame<Self::Kept>], _frame: Frame<Self::Kept>) {}
}

/// A state on the way to the present one.
#[derive(Debug)]
pub struct Frame<K> {
    /// The state.
    pub state: State,
    /// What its strategy keeps of it.
    pub kept: K,
}

/// What a state that a walk has come to is to it.
#[derive(Debug)]
pub enum Entry<K> {
    /// One to go on from.
    GoOn(K),
    /// One from which there is nothing left to try.
    Known,
    /// One in which nothing can go on.
    End,
}

/// Where a walk begins.
#[derive(Debug, Clone)]
pub struct Root {
    /// The state.
    pub state: State,
    /// The way there.
    pub path: Vec<Turn>,
}

impl Root {
    /// The beginning of every schedule.
    pub fn beginning(hunt: &Hunt<'_>) -> Self {
        Self {
            state: hunt.specimen.root().clone(),
            path: Vec::new(),
        }
    }
}

/// Why a walk was cut short.
#[derive(Debug)]
pub enum Cut {
    /// What was found so far is void.
    Void,
    /// The search is over.
    End(End),
    /// The host failed.
    Failed(SpecimenError),
}

impl From<SpecimenError> for Cut {
    fn from(error: SpecimenError) -> Self {
        Self::Failed(error)
    }
}

/// Does all of `once`, and does it anew, with what has been learnt, as often as it proves void.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn until_sound<'a>(
    hunt: &mut Hunt<'a>,
    mut once: impl FnMut(&mut Hunt<'a>) -> Result<(), Cut>,
) -> Result<End, SpecimenError> {
    loop {
        hunt.counts.states = 0;
        hunt.outcomes.clear();
        hunt.comes_round = false;
        match once(hunt) {
            // Pages are asked for now and then only: one of the last steps can have written
            // another.
            Ok(()) if !hunt.is_incomplete()? && !hunt.sharing.is_void() => {
                return Ok(End::Complete);
            }
            Ok(()) => hunt.begin_anew(),
            Err(Cut::End(end)) => return Ok(end),
            Err(Cut::Failed(error)) => return Err(error),
            Err(Cut::Void) => hunt.begin_anew(),
        }
    }
}

/// Tries all that `walker` has to try from `root` on.
///
/// # Errors
/// [`Cut`] if it did not come to the end of that.
pub fn walk<W: Walker>(hunt: &mut Hunt<'_>, walker: &mut W, root: Root) -> Result<(), Cut> {
    let Root { state, path } = root;
    hunt.specimen.load(&state);
    let mut way = Way {
        frames: Vec::new(),
        places: ByKey::default(),
        begins: path.len(),
        path,
    };
    // Whether the machine is in the last state of the way.
    let mut is_there = way.enter(hunt, walker, state, None)?;
    while let Some(Frame { state, kept }) = way.frames.last_mut() {
        let Some((choice, step)) = walker.next(state, kept) else {
            way.leave(walker);
            is_there = false;
            continue;
        };
        if !is_there {
            hunt.specimen.load(state);
        }
        make(hunt, choice, &mut way.path)?;
        let next = hunt.specimen.save();
        is_there = way.enter(hunt, walker, next, Some(step))?;
        if !is_there {
            way.path.pop();
        }
    }
    Ok(())
}

/// The way to the present state.
#[derive(Debug)]
struct Way<K> {
    frames: Vec<Frame<K>>,
    /// By key: the place of the first frame of that state.
    places: ByKey<u128, usize>,
    /// The turns from the beginning of every schedule.
    path: Vec<Turn>,
    /// How many of them lead to the first frame.
    begins: usize,
}

impl<K> Way<K> {
    /// Comes to `state`. Whether to go on from there, as the last of the way.
    fn enter<W: Walker<Kept = K>>(
        &mut self,
        hunt: &mut Hunt<'_>,
        walker: &mut W,
        state: State,
        by: Option<W::Step>,
    ) -> Result<bool, Cut> {
        let is_end = match walker.enter(hunt, &mut self.frames, &state, by) {
            Entry::GoOn(kept) => {
                let place = self.frames.len();
                self.places.entry(state.key()).or_insert(place);
                self.frames.push(Frame { state, kept });
                return Ok(true);
            }
            Entry::Known => false,
            Entry::End => true,
        };
        hunt.counts.schedules += 1;
        if is_end {
            judge(hunt, &self.path)?;
        } else if let Some(place) = self.places.get(&state.key()) {
            hunt.comes_round = true;
            self.go_round(hunt, *place)?;
        }
        Ok(false)
    }

    /// Goes back from the last state.
    fn leave<W: Walker<Kept = K>>(&mut self, walker: &mut W) {
        if let Some(frame) = self.frames.pop() {
            let key = frame.state.key();
            if self.places.get(&key) == Some(&self.frames.len()) {
                self.places.remove(&key);
            }
            walker.leave(&mut self.frames, frame);
        }
        self.path.pop();
    }

    /// The way has come back to the state at `place`.
    fn go_round(&self, hunt: &mut Hunt<'_>, place: usize) -> Result<(), Cut> {
        let mut choices = Vec::new();
        for frame in &self.frames[place..] {
            hunt.specimen.load(&frame.state);
            choices.extend(hunt.specimen.choices());
        }
        let round = &self.path[self.begins + place..];
        if goes_on(round, choices) {
            return Err(broke(hunt, &self.path, Breach::round(round)));
        }
        Ok(())
    }
}

/// Makes `choice`, at the end of `path`, which it becomes part of.
///
/// # Errors
/// [`Cut`] if something broke, or nothing is to follow.
pub fn make(hunt: &mut Hunt<'_>, choice: Choice, path: &mut Vec<Turn>) -> Result<(), Cut> {
    let moved = hunt.advance(choice)?;
    path.push(turn(hunt.specimen, choice, moved.stops));
    hunt.counts.depth = path.len() as u64;
    hunt.counts.deepest = hunt.counts.deepest.max(hunt.counts.depth);
    if let Some(breach) = moved.breach {
        return Err(broke(hunt, path, breach));
    }
    match hunt.look()? {
        Look::GoOn => Ok(()),
        Look::Void => Err(Cut::Void),
        Look::Stop(why) => Err(Cut::End(End::Stopped(why))),
    }
}

/// Judges an end, to which `path` has led.
///
/// # Errors
/// [`Cut`] if something broke.
pub fn judge(hunt: &mut Hunt<'_>, path: &[Turn]) -> Result<(), Cut> {
    hunt.counts.ends += 1;
    hunt.note_outcome();
    match hunt.specimen.judge()? {
        None => Ok(()),
        Some(breach) => Err(broke(hunt, path, breach)),
    }
}

/// What it means that something broke at the end of `path`.
pub fn broke(hunt: &mut Hunt<'_>, path: &[Turn], breach: Breach) -> Cut {
    match hunt.is_incomplete() {
        Ok(true) => Cut::Void,
        Ok(false) => Cut::End(End::Broke(Found {
            turns: path.to_vec(),
            breach,
        })),
        Err(error) => Cut::Failed(error),
    }
}
