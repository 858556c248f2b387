//! Whether CPUs can go round for ever. A guest says of the loops in which it waits that it does,
//! and a CPU that would find nothing new then waits: if that is all there is, no state is ever come
//! back to, and every order has an end. Where one *is* come back to, as in a loop that nobody has
//! announced, the searches that leave orders out do not know whether CPUs can go round together
//! without an end: the round can lie in what was left out, or be made of several. This one makes
//! every step from every state, and looks for a state from which no end can be reached any more.

use super::graph::Graph;
use super::walk::{broke, make, until_sound};
use super::{End, Hunt};
use crate::explore::specimen::{Breach, SpecimenError};

/// Searches from the beginning.
///
/// # Errors
/// [`SpecimenError`] if the host fails.
pub fn search(hunt: &mut Hunt<'_>) -> Result<End, SpecimenError> {
    until_sound(hunt, |hunt| {
        let mut graph = Graph::default();
        hunt.counts.ends = 0;
        graph.explore(hunt)?;
        // Nothing that leaves no order out finds more than what breaks.
        let (choices, round, breach) = match graph.broken.first() {
            Some((choices, breach)) => (choices.clone(), Vec::new(), Some(breach.clone())),
            None => {
                let Some(number) = graph.without_end() else {
                    return Ok(());
                };
                let (into, round) = graph.round_from(number);
                ([graph.way_to(number), into].concat(), round, None)
            }
        };
        hunt.specimen.mend()?;
        hunt.specimen.rewind();
        let mut turns = Vec::new();
        for choice in choices {
            make(hunt, choice, &mut turns)?;
        }
        let begins = turns.len();
        for choice in round {
            make(hunt, choice, &mut turns)?;
        }
        let breach = breach.unwrap_or_else(|| Breach::round(&turns[begins..]));
        Err(broke(hunt, &turns, breach))
    })
}
