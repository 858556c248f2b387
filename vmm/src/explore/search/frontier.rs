//! Shares out an exhaustive search: every shard walks the same few states from the beginning, breadth first and
//! without leaving anything out, and then searches on from its part of those that it came to. Which ones those
//! are depends on the case and on what is known of what CPUs share, on nothing else.

use std::collections::VecDeque;

use super::exhaustive::Seen;
use super::{End, Found, Hunt, Look};
use crate::explore::Shard;
use crate::explore::schedule::Turn;
use crate::explore::specimen::{SpecimenError, State};

/// States for each shard, of which some lead to many more than others.
const PER_SHARD: usize = 8;

/// A state from which to search on, and the way there.
#[derive(Debug)]
pub struct Root {
    /// The state.
    pub state: State,
    /// The way.
    pub path: Vec<Turn>,
}

/// What came of it.
#[derive(Debug)]
pub enum Frontier {
    /// The states from which this shard is to search on.
    Roots(Vec<Root>),
    /// What was found so far is void.
    Void,
    /// Something broke on the way, or it had to stop.
    End(End),
}

/// Finds the states from which `shard` searches on. Those of the others are put into `seen`, as are those on
/// the way, with all that was tried from there: somebody does.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn expand(
    hunt: &mut Hunt<'_>,
    seen: &mut Seen,
    shard: Shard,
) -> Result<Frontier, SpecimenError> {
    let beginning = Root {
        state: hunt.specimen.root().clone(),
        path: Vec::new(),
    };
    if shard == Shard::WHOLE {
        return Ok(Frontier::Roots(vec![beginning]));
    }
    let shards = usize::try_from(shard.of).unwrap_or(usize::MAX);
    let enough = shards.saturating_mul(PER_SHARD);
    // What was met, to tell what is new; `seen` gets it once it is known whose it is.
    let mut met = Seen::default();
    met.insert(beginning.state.key());
    let mut waiting = VecDeque::from([beginning]);
    while waiting.len() < enough
        && let Some(Root { state, path }) = waiting.pop_front()
    {
        hunt.specimen.load(&state);
        let choices = hunt.specimen.choices();
        if seen.insert(state.key()) {
            hunt.counts.states += 1;
        }
        if choices.is_empty() {
            hunt.counts.ends += 1;
            seen.insert_end(state.key());
            if let Some(breach) = hunt.specimen.judge()? {
                return broke(hunt, path, breach);
            }
        }
        for (index, choice) in choices.into_iter().enumerate() {
            if index > 0 {
                hunt.specimen.load(&state);
            }
            let moved = hunt.advance(choice)?;
            let mut path = path.clone();
            path.push(hunt.turn(choice, moved.stops));
            if let Some(breach) = moved.breach {
                return broke(hunt, path, breach);
            }
            match hunt.look()? {
                Look::GoOn => {}
                Look::Void => return Ok(Frontier::Void),
                Look::Stop(why) => return Ok(Frontier::End(End::Stopped(why))),
            }
            let next = hunt.specimen.save();
            if met.insert(next.key()) {
                waiting.push_back(Root { state: next, path });
            }
        }
    }
    // A page that is kept from now on is in none of the states that wait.
    if hunt.is_incomplete()? {
        return Ok(Frontier::Void);
    }
    let (mine, others): (Vec<_>, Vec<_>) = (0..)
        .zip(waiting)
        .partition(|(place, _): &(u64, _)| place % shard.of == shard.index);
    for (_, root) in others {
        seen.insert(root.state.key());
        hunt.counts.states += 1;
    }
    Ok(Frontier::Roots(
        mine.into_iter().map(|(_, root)| root).collect(),
    ))
}

fn broke(
    hunt: &mut Hunt<'_>,
    turns: Vec<Turn>,
    breach: crate::explore::specimen::Breach,
) -> Result<Frontier, SpecimenError> {
    if hunt.is_incomplete()? {
        return Ok(Frontier::Void);
    }
    Ok(Frontier::End(End::Broke(Found { turns, breach })))
}
