//! Every order that can matter: depth first, and from each state only one CPU goes on at first.
//! Another is tried there only if a later step of it turns out to race with one that was taken from
//! there (dynamic partial-order reduction: Flanagan and Godefroid, POPL 2005). States are kept by
//! their keys, each with all that happens behind it, so that the search need not go on from one
//! twice, and still learns which of those steps race with the way on which it came there the second
//! time (Yang, Chen, Gopalakrishnan and Kirby, SPIN 2008).
//!
//! Two steps race if their order can matter and nothing between them orders them already.

mod actions;
mod steps;

use super::walk::{Entry, Frame, Root, Walker, until_sound, walk};
use super::{ByKey, End, Hunt};
use crate::explore::schedule::Choice;
use crate::explore::specimen::{SpecimenError, State};
use actions::{Action, Actions, Future};
use steps::Steps;

/// CPUs, as a set.
type Cpus = u64;

/// CPUs that this search can tell apart.
pub const MOST_CPUS: usize = 64;

/// Searches from the beginning.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(hunt: &mut Hunt<'_>) -> Result<End, SpecimenError> {
    until_sound(hunt, |hunt| {
        let root = Root::beginning(hunt);
        walk(hunt, &mut Races::new(root.state.cpus().len()), root)
    })
}

/// One search.
#[derive(Debug)]
struct Races {
    seen: ByKey<u128, Known>,
    actions: Actions,
    /// One leads from each state on the way to the next.
    steps: Steps,
}

/// What is known of a state that was seen.
#[derive(Debug)]
enum Known {
    /// It is on the way to the present one, at this place.
    OnTheWay(usize),
    /// All that happens behind it.
    Done(Future),
    /// The same happens behind it as behind the state with this key, from which it can be reached,
    /// and which can be reached from it.
    With(u128),
}

/// What is kept of a state on the way.
#[derive(Debug)]
struct Kept {
    /// With the numbers of their actions.
    choices: Vec<(Choice, usize)>,
    /// CPUs that can go on there, if only by taking an interrupt.
    able: Cpus,
    /// Those of them that can go on with what they are about to do.
    unblocked: Cpus,
    /// CPUs that have to be tried from there, and those that were.
    wanted: Cpus,
    tried: Cpus,
    /// Choices of the one that is tried.
    todo: Vec<(Choice, usize)>,
    /// What is known by now to happen behind it.
    future: Future,
    /// The place of the first state on the way that can be reached from it again, if one can.
    back_to: Option<usize>,
}

impl Walker for Races {
    type Kept = Kept;
    /// The number of its action.
    type Step = usize;

    fn next(&mut self, _: &State, kept: &mut Kept) -> Option<(Choice, usize)> {
        if kept.todo.is_empty() {
            let fresh = kept.wanted & !kept.tried & kept.able;
            if fresh == 0 {
                return None;
            }
            let cpu = fresh.trailing_zeros() as usize;
            kept.tried |= 1 << cpu;
            let of_it = kept.choices.iter().filter(|(choice, _)| choice.cpu == cpu);
            kept.todo.extend(of_it.copied());
        }
        kept.todo.pop()
    }

    fn enter(
        &mut self,
        hunt: &mut Hunt<'_>,
        way: &mut [Frame<Kept>],
        state: &State,
        by: Option<usize>,
    ) -> Entry<Kept> {
        if let Some(action) = by {
            self.steps.push(&self.actions, action);
        }
        let entry = match self.known(state.key()) {
            Some(known) => {
                self.meet_again(way, known);
                Entry::Known
            }
            None => self.meet(hunt, way, state, by),
        };
        if !matches!(entry, Entry::GoOn(_)) {
            self.steps.pop();
        }
        entry
    }

    fn leave(&mut self, way: &mut [Frame<Kept>], frame: Frame<Kept>) {
        self.steps.pop();
        let Kept {
            future, back_to, ..
        } = frame.kept;
        match back_to.filter(|place| *place < way.len()) {
            // All that happens behind it is known when it is of that one.
            Some(place) => {
                let first = way[place].state.key();
                go_back(way, place);
                below(way, &future);
                self.seen.insert(frame.state.key(), Known::With(first));
            }
            None => self.close(way, &frame.state, future),
        }
    }
}

/// Notes that the last of `way` leads back to the one at `place`.
fn go_back(way: &mut [Frame<Kept>], place: usize) {
    if let Some(last) = way.last_mut() {
        let first = last.kept.back_to.map_or(place, |before| before.min(place));
        last.kept.back_to = Some(first);
    }
}

/// Notes what happens behind the last of `way`.
fn below(way: &mut [Frame<Kept>], future: &Future) {
    if let Some(last) = way.last_mut() {
        last.kept.future.add(future);
    }
}

impl Races {
    fn new(cpus: usize) -> Self {
        Self {
            seen: ByKey::default(),
            actions: Actions::default(),
            steps: Steps::new(cpus),
        }
    }

    /// Comes to a state that is new, by a step of action `by`.
    fn meet(
        &mut self,
        hunt: &mut Hunt<'_>,
        way: &mut [Frame<Kept>],
        state: &State,
        by: Option<usize>,
    ) -> Entry<Kept> {
        hunt.counts.states += 1;
        let choices = hunt.specimen.choices();
        // What a CPU waits for is a step too, of which it is to be known whether it could have come
        // before.
        let cpus = 0..state.cpus().len();
        let waits: Vec<_> = cpus
            .map(|cpu| Choice { cpu, takes: None })
            .filter(|choice| !choices.contains(choice))
            .collect();
        let mut future = Future::default();
        let mut come_to = |choice: Choice| {
            let is_blocked = waits.iter().any(|waits| waits.cpu == choice.cpu);
            let action = Action::of(state, choice, is_blocked);
            let action = self.actions.number(action);
            self.find_race(way, action);
            future.insert(action);
            (choice, action)
        };
        for choice in &waits {
            come_to(*choice);
        }
        let choices: Vec<_> = choices.into_iter().map(come_to).collect();
        if choices.is_empty() {
            self.close(way, state, future);
            return Entry::End;
        }
        self.seen.insert(state.key(), Known::OnTheWay(way.len()));
        let cpus = choices.iter().map(|(choice, _)| choice.cpu);
        let able: Cpus = cpus.fold(0, |set, cpu| set | 1 << cpu);
        let unblocked = (choices.iter())
            .filter(|(choice, _)| choice.takes.is_none())
            .fold(0, |set, (choice, _)| set | 1 << choice.cpu);
        // Whoever ran last goes on first: schedules stay short.
        let last = by.map(|action| self.actions.cpu(action));
        let last = last.filter(|cpu| able >> cpu & 1 != 0);
        Entry::GoOn(Kept {
            able,
            unblocked,
            wanted: 1 << last.unwrap_or(choices[0].0.cpu),
            tried: 0,
            todo: Vec::new(),
            future,
            back_to: None,
            choices,
        })
    }

    /// What is known of the state with this key, or of the one with which it shares that.
    fn known(&self, key: u128) -> Option<&Known> {
        let mut known = self.seen.get(&key)?;
        while let Known::With(key) = known {
            known = self.seen.get(key)?;
        }
        Some(known)
    }

    /// Comes once more to a state that is known.
    fn meet_again(&self, way: &mut [Frame<Kept>], known: &Known) {
        match known {
            // Round in a circle. What happens behind it is not known yet, so nothing is left out.
            Known::OnTheWay(place) => {
                for frame in &mut way[*place..] {
                    frame.kept.wanted = Cpus::MAX;
                }
                go_back(way, *place);
            }
            Known::Done(future) => {
                for action in future.iter() {
                    self.find_later_races(way, action);
                }
                below(way, future);
            }
            // Followed by `known`.
            Known::With(_) => {}
        }
    }

    /// Notes what happens behind `state`, from which all was tried, and which the last of `way`
    /// leads to.
    fn close(&mut self, way: &mut [Frame<Kept>], state: &State, future: Future) {
        below(way, &future);
        self.seen.insert(state.key(), Known::Done(future));
    }

    /// Has tried, in front of the last step on the way that races with `action`, which comes next,
    /// whatever lets the action come first.
    fn find_race(&self, way: &mut [Frame<Kept>], action: usize) {
        if let Some(raced) = self.steps.raced(&self.actions, action).max() {
            self.want(way, action, raced, false);
        }
    }

    /// The same for an action that comes some time behind the present state, and for all steps that
    /// race with it: the last of them can be ordered before it by what comes between, of which the
    /// order is not known any more.
    fn find_later_races(&self, way: &mut [Frame<Kept>], action: usize) {
        for raced in self.steps.raced(&self.actions, action) {
            self.want(way, action, raced, true);
        }
    }

    /// Has tried, in front of the step at `place`, a step of the CPU `raced`, whatever lets
    /// `action` come first.
    fn want(
        &self,
        way: &mut [Frame<Kept>],
        action: usize,
        (place, raced): (usize, usize),
        is_later: bool,
    ) {
        // Step 1 leads from the first state.
        let kept = &mut way[place - 1].kept;
        let able = kept.able;
        let is_able = |cpu: usize| able >> cpu & 1 != 0;
        let cpu = self.actions.cpu(action);
        if is_able(cpu) {
            kept.wanted |= 1 << cpu;
            let can_be_it = kept.unblocked >> cpu & 1 != 0 || !self.actions.goes_on(action);
            if can_be_it {
                return;
            }
            // It can take an interrupt there, but waits with what it was about to do.
        }
        // It waited there. Whoever else brings it to where it can come first has to go on instead.
        let mut instead: Cpus = 0;
        let before = self.steps.before(&self.actions, action);
        for (other, last) in before.into_iter().enumerate() {
            if last > place && other != raced && is_able(other) {
                instead |= 1 << other;
            }
        }
        // What that is can be known only if it is on the way: in the future it can be several
        // steps, as when an interrupt is sent and taken. If it is nobody, somebody may have been
        // passed over (Flanagan and Godefroid).
        if is_later || instead == 0 {
            instead = Cpus::MAX;
        }
        kept.wanted |= instead;
    }
}
