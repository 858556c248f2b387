//! The search that the others are held against. It shares none of their rules: every access, every
//! release and every round of a waiting loop is a step, an interrupt can come at each, nothing is
//! passed over, learnt, or taken for the same as anything else, and a state is all of memory and
//! all registers. It does not end with the first thing that breaks, so that it knows everything
//! that can. It is slow, and for small cases.
//!
//! Nobody waits here: a CPU that finds nothing goes round, into a state that is known. So there is
//! no state in which nothing can go on and somebody waits; instead there are states from which no
//! end can be reached any more, and that is what a hang, or a livelock, is.

use super::graph::Graph;
use super::walk::until_sound;
use super::{End, Found, Hunt, sampled};
use crate::explore::schedule::{Choice, Turn};
use crate::explore::specimen::{Breach, SpecimenError};

/// Searches from the beginning. Returns what can break, each kind once with the first way that led
/// there.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(hunt: &mut Hunt<'_>) -> Result<(End, Vec<Found>), SpecimenError> {
    sampled::touch_pages(hunt)?;
    let mut broken = Vec::new();
    let end = until_sound(hunt, |hunt| {
        let mut graph = Graph::default();
        hunt.counts.ends = 0;
        let ended = graph.explore(hunt);
        if ended.is_ok()
            && let Some(number) = graph.without_end()
        {
            let choices = graph.way_to(number);
            graph.breaks(choices, Breach::without_end());
        }
        let found = |(choices, breach): (Vec<Choice>, Breach)| Found {
            turns: choices.into_iter().map(step).collect(),
            breach,
        };
        broken = graph.broken.into_iter().map(found).collect();
        ended
    })?;
    Ok((end, broken))
}

/// A turn of one step.
fn step(choice: Choice) -> Turn {
    Turn {
        cpu: u32::try_from(choice.cpu).unwrap_or(u32::MAX),
        takes: choice.takes,
        stops: 1,
        until: String::new(),
        state: None,
    }
}
