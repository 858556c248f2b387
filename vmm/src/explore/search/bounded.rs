//! Every order with few preemptions first: all with none, then all with one, and so on (iterative context
//! bounding: Musuvathi and Qadeer, PLDI 2007). Most bugs need one or two, and what is found this way is short.
//!
//! A preemption is a change to another CPU while the one that ran could have gone on. What a CPU that waits,
//! or has nothing to do, leaves to others costs nothing, and neither does it to take a pending interrupt.

use std::collections::hash_map::Entry;

use super::{ByKey, End, Found, Hunt, Look};
use crate::explore::schedule::{Choice, Turn};
use crate::explore::specimen::{Breach, SpecimenError, State};

#[derive(Debug)]
struct Frame {
    state: State,
    /// Choices to try from here, each with the preemptions used by then.
    todo: Vec<(Choice, u32)>,
    by: Option<Turn>,
}

/// By state and the CPU that ran last: the fewest preemptions it was reached with.
type Seen = ByKey<(u128, usize), u32>;

/// Searches with at most `bound` preemptions, from none on. Returns with which bound it ended.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(hunt: &mut Hunt<'_>, bound: u32) -> Result<(End, u32), SpecimenError> {
    for most in 0..=bound {
        let end = loop {
            hunt.counts.states = 0;
            if let Some(end) = descend(hunt, most)? {
                break end;
            }
            hunt.sharing.begin_anew();
            hunt.counts.begun_anew += 1;
        };
        if !matches!(end, End::Complete) || most == bound {
            return Ok((end, most));
        }
    }
    Ok((End::Complete, bound))
}

fn descend(hunt: &mut Hunt<'_>, bound: u32) -> Result<Option<End>, SpecimenError> {
    hunt.specimen.rewind();
    let mut seen = Seen::default();
    let mut stack: Vec<Frame> = Vec::new();
    let root = hunt.specimen.root().clone();
    if let Some(breach) = enter(hunt, &mut seen, &mut stack, root, None, (0, bound))? {
        return Ok(Some(broke(&stack, None, breach)));
    }
    let mut is_there = true;
    while let Some(frame) = stack.last_mut() {
        let Some((choice, used)) = frame.todo.pop() else {
            stack.pop();
            is_there = false;
            continue;
        };
        if !is_there {
            hunt.specimen.load(&frame.state);
        }
        let moved = hunt.advance(choice)?;
        let taken = hunt.turn(choice, moved.stops);
        if let Some(breach) = moved.breach {
            if hunt.is_incomplete()? {
                return Ok(None);
            }
            return Ok(Some(broke(&stack, Some(taken), breach)));
        }
        match hunt.look()? {
            Look::GoOn => {}
            Look::Void => return Ok(None),
            Look::Stop(why) => return Ok(Some(End::Stopped(why))),
        }
        let next = hunt.specimen.save();
        let before = stack.len();
        let by = Some((&taken, choice.cpu));
        if let Some(breach) = enter(hunt, &mut seen, &mut stack, next, by, (used, bound))? {
            if hunt.is_incomplete()? {
                return Ok(None);
            }
            return Ok(Some(broke(&stack, Some(taken), breach)));
        }
        is_there = stack.len() > before;
    }
    Ok(Some(End::Complete))
}

fn enter(
    hunt: &mut Hunt<'_>,
    seen: &mut Seen,
    stack: &mut Vec<Frame>,
    state: State,
    by: Option<(&Turn, usize)>,
    (used, bound): (u32, u32),
) -> Result<Option<Breach>, SpecimenError> {
    let last = by.map(|(_, cpu)| cpu);
    match seen.entry((state.key(), last.unwrap_or(usize::MAX))) {
        Entry::Occupied(known) if *known.get() <= used => {
            hunt.counts.schedules += 1;
            return Ok(None);
        }
        Entry::Occupied(mut known) => {
            known.insert(used);
        }
        Entry::Vacant(place) => {
            place.insert(used);
            hunt.counts.states += 1;
        }
    }
    let choices = hunt.specimen.choices();
    if choices.is_empty() {
        hunt.counts.ends += 1;
        hunt.counts.schedules += 1;
        return hunt.specimen.judge();
    }
    let could_go_on = choices
        .iter()
        .any(|choice| Some(choice.cpu) == last && choice.takes.is_none());
    let priced = choices.into_iter().map(|choice| {
        let is_preemption = could_go_on && Some(choice.cpu) != last;
        (choice, used + u32::from(is_preemption))
    });
    let mut todo: Vec<_> = priced.filter(|(_, used)| *used <= bound).collect();
    // What costs nothing is tried first.
    todo.sort_by_key(|(_, used)| std::cmp::Reverse(*used));
    stack.push(Frame {
        state,
        todo,
        by: by.map(|(turn, _)| turn.clone()),
    });
    hunt.counts.depth = stack.len() as u64;
    hunt.counts.deepest = hunt.counts.deepest.max(hunt.counts.depth);
    Ok(None)
}

fn broke(stack: &[Frame], last: Option<Turn>, breach: Breach) -> End {
    let turns = stack.iter().filter_map(|frame| frame.by.clone());
    End::Broke(Found {
        turns: turns.chain(last).collect(),
        breach,
    })
}
