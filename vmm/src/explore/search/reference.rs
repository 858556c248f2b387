//! The reference search, with which the other strategies are compared. It shares none of their
//! reductions: every access, every release of a lock and every turn of a waiting loop is a step, an
//! interrupt can arrive before each of them, nothing is passed over or learnt, and a state is all
//! of memory and all registers. It does not stop at the first breach, so that it finds everything
//! that can break. It is slow, and made for small cases.
//!
//! No CPU waits here: one that finds nothing new takes another turn of its loop, into a state that
//! is known. So no state exists in which a CPU waits and no CPU can go on. A hang or a livelock is
//! instead a state from which no final state can be reached.

use std::sync::{Mutex, PoisonError};

use super::end::{Counterexample, SearchEnd};
use super::graph::{Graph, step};
use super::sampled;
use super::workers::Workers;
use crate::explore::schedule::Choice;
use crate::explore::specimen::{Breach, SpecimenError};

/// Searches from the initial state, by the first worker alone. Returns what can break: for each kind of breach the first
/// counterexample.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(
    workers: &mut Workers<'_>,
) -> Result<(SearchEnd, Vec<Counterexample>), SpecimenError> {
    sampled::touch_pages(workers.first())?;
    let broken = Mutex::new(Vec::new());
    let end = workers.alone_until_sound(|engine| {
        let mut graph = Graph::default();
        engine.counts.ends = 0;
        let ended = graph.explore(engine);
        if ended.is_ok()
            && let Some(number) = graph.without_end()
        {
            let choices = graph.path_to(number);
            graph.add_breach(engine, choices, Breach::without_end());
        }
        let found = |(choices, breach): (Vec<Choice>, Breach)| Counterexample {
            turns: choices.into_iter().map(step).collect(),
            breach,
        };
        let found = graph.broken.into_iter().map(found).collect();
        *broken.lock().unwrap_or_else(PoisonError::into_inner) = found;
        ended
    })?;
    let broken = broken.into_inner();
    Ok((end, broken.unwrap_or_else(PoisonError::into_inner)))
}
