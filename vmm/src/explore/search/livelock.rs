//! Finds out whether CPUs can run for ever. A guest announces the loops in which it waits, and a
//! CPU that would find nothing new in such a loop waits instead of running. If there are no other
//! loops, no state is ever reached again on one path, and every order ends. A loop that was not
//! announced makes cycles. The strategies that leave orders out then cannot tell whether CPUs can
//! run for ever together: the cycle can be in what was left out, or be made of several smaller
//! ones. This search makes every step from every state, and looks for a state from which no final
//! state can be reached.

use super::dfs::{broke, make};
use super::end::SearchEnd;
use super::graph::Graph;
use super::workers::Workers;
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
        // A breach comes first: it was found although no order was left out.
        let (choices, cycle, breach) = match graph.broken.first() {
            Some((choices, breach)) => (choices.clone(), Vec::new(), Some(breach.clone())),
            None => {
                let Some(number) = graph.without_end() else {
                    return Ok(());
                };
                let (lead_in, cycle) = graph.cycle_from(number);
                ([graph.path_to(number), lead_in].concat(), cycle, None)
            }
        };
        engine.system.mend()?;
        engine.system.rewind();
        let mut turns = Vec::new();
        for choice in choices {
            make(engine, choice, &mut turns)?;
        }
        let cycle_begins = turns.len();
        for choice in cycle {
            make(engine, choice, &mut turns)?;
        }
        let breach = breach.unwrap_or_else(|| Breach::cycle(&turns[cycle_begins..]));
        Err(broke(engine, &turns, breach))
    })
}
