//! Finds out whether CPUs can run for ever. A guest announces the loops in which it waits, and a
//! CPU that would find nothing new in such a loop waits instead of running. If there are no other
//! loops, no state is ever reached again on one path, and every order ends. A loop that was not
//! announced makes cycles. The strategies that leave orders out then cannot tell whether CPUs can
//! run for ever together: the cycle can be in what was left out, or be made of several smaller
//! ones. This search makes every step from every state, and looks for a state from which no final
//! state can be reached.

use super::dfs::{self, Cut, broke, make};
use super::end::SearchEnd;
use super::engine::Engine;
use super::graph::Graph;
use super::workers::Workers;
use crate::explore::schedule::{Choice, Turn};
use crate::explore::specimen::{Breach, SpecimenError};
use crate::explore::stop_reason::StopReason;

/// What a search that ended with `end` may claim about all orders: it is complete only if all of
/// them end. If the search `is_part` of a shared one and has met a cycle, it cannot tell.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn confirm_complete(
    workers: &mut Workers<'_>,
    end: SearchEnd,
    is_part: bool,
) -> Result<SearchEnd, SpecimenError> {
    match end {
        SearchEnd::Complete if workers.first().has_cycle && is_part => {
            Ok(SearchEnd::Stopped(StopReason::Cycle))
        }
        SearchEnd::Complete if workers.first().has_cycle => search(workers),
        end => Ok(end),
    }
}

/// Searches from the initial state, by the first worker alone.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(workers: &mut Workers<'_>) -> Result<SearchEnd, SpecimenError> {
    workers.alone_until_sound(|engine| {
        let mut graph = Graph::default();
        engine.counts.ends = 0;
        graph.explore(engine)?;
        // The search before can have left out orders that are not equivalent to any of its own.
        for (number, is_end) in std::mem::take(&mut graph.to_note) {
            let mut turns = Vec::new();
            follow(engine, graph.path_to(number), &mut turns)?;
            engine.note(is_end, &|| turns.clone());
            if is_end && engine.wants_witness() && engine.system.judge()?.is_none() {
                engine.note_end(&turns);
            }
            dfs::go_on(engine.confirm()?)?;
        }
        engine.found.more_kinds |= graph.more_kinds;
        // A breach comes first: it was found although no order was left out.
        for (choices, breach) in std::mem::take(&mut graph.broken) {
            let mut turns = Vec::new();
            follow(engine, choices, &mut turns)?;
            broke(engine, &turns, breach)?;
        }
        let Some(number) = graph.without_end() else {
            return Ok(());
        };
        let (lead_in, cycle) = graph.cycle_from(number);
        let mut turns = Vec::new();
        follow(engine, graph.path_to(number), &mut turns)?;
        go_on(engine, lead_in, &mut turns)?;
        let cycle_begins = turns.len();
        go_on(engine, cycle, &mut turns)?;
        let breach = Breach::cycle(&turns[cycle_begins..]);
        broke(engine, &turns, breach)
    })
}

/// Makes the steps `choices` from the initial state, and adds them to `turns`.
fn follow(engine: &mut Engine<'_>, choices: Vec<Choice>, turns: &mut Vec<Turn>) -> Result<(), Cut> {
    engine.system.mend()?;
    engine.system.rewind();
    go_on(engine, choices, turns)
}

/// The same from the present state.
fn go_on(engine: &mut Engine<'_>, choices: Vec<Choice>, turns: &mut Vec<Turn>) -> Result<(), Cut> {
    for choice in choices {
        let from = engine.system.save();
        make(engine, &from, choice, turns)?;
    }
    Ok(())
}
