//! What IPIs and calls cost on this host. Boots the guest once for each kind of them, has it send
//! the same one again and again, and takes times from the guest and counts from each source of
//! counts. The guest's manifest says how the guest is told what to send. Knows nothing of how the
//! figures are shown; of files only how an earlier result is read.
//!
//! Times are the guest's own, of each round, between two readings of the TSC. Counts cover the
//! whole machine from the end of the warm-up to the end of the workload, less the background: what
//! the host does anyway, as a run that sends nothing shows. They are divided by the rounds, or by
//! the deliveries. KVM's statistics are counted in the runs that are timed: a round causes no exit
//! by being timed, and the record of its time is written outside what is timed. Tracepoints make
//! every exit longer, and so have a run of their own.

mod cell;
mod classic;
mod costs;
mod error;
mod filter;
mod handling;
mod loops;
mod measure;
mod words;

use std::collections::BTreeMap;

pub use cell::Cell;
pub use classic::{ClassicCell, ClassicCost, ClassicRow, ROUNDS_OF_CLASSIC};
pub use costs::{Cost, Costs, Effort, Measured, SCHEMA};
pub use error::BenchError;
pub use filter::{Filter, NoSuchValue, cells, check};
pub use handling::{Handling, IpiHandling};
pub use loops::{classic_cells, measure_classic};
pub use words::{BenchWords, Unmeasurable};

use crate::Config;
use measure::Background;

/// Measures `cells` one after the other on machines like `config`. Its command line comes in front
/// of each cell's; `words` are those of its guest. `progress` is called with each cell, and its
/// number from 0, before it is measured. The result of a cell that this guest or host refuses is
/// the reason. Returns the exit status of the bench: that of the first run in which something was
/// found or nothing moved; if nothing at all was measured, that of the first run; else 0.
///
/// # Errors
/// [`BenchError`] if there is no machine, or the bench was interrupted. What was measured before is
/// in `costs`.
pub fn measure(
    config: &Config,
    words: &BenchWords,
    cells: &[Cell],
    effort: Effort,
    costs: &mut Costs,
    mut progress: impl FnMut(usize, &Cell),
) -> Result<u8, BenchError> {
    if config.vcpus < 2 {
        return Err(BenchError::TooFew);
    }
    let mut backgrounds: BTreeMap<String, Background> = BTreeMap::new();
    let mut unmeasured = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        progress(number, cell);
        let background = match backgrounds.get(&cell.receiver) {
            Some(known) => known,
            None => {
                let quiet = Background::measure(config, words, &cell.receiver, effort)?;
                backgrounds.entry(cell.receiver.clone()).or_insert(quiet)
            }
        };
        let result = measure::cell(config, words, cell, effort, background)?;
        unmeasured.extend(result.as_ref().err().map(|it| (it.is_finding, it.status)));
        costs.cells.push(Measured {
            cell: cell.clone(),
            result: result.map_err(|it| it.why),
        });
    }
    Ok(status(cells.len(), &unmeasured))
}

/// The exit status of a bench of so many `cells`. For each cell that was not measured, `unmeasured`
/// says whether the reason is a finding, and the exit status of the run.
fn status(cells: usize, unmeasured: &[(bool, u8)]) -> u8 {
    let found = unmeasured.iter().find(|(is_finding, _)| *is_finding);
    let refused = unmeasured.first().filter(|_| unmeasured.len() == cells);
    found.or(refused).map_or(0, |(_, status)| *status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_told_and_what_is_refused_if_nothing_else_is_left() {
        let (options, died) = ((false, 2), (false, 4));
        let (fail, stalled) = ((true, 1), (true, 5));
        assert_eq!(status(3, &[]), 0);
        assert_eq!(status(3, &[died, options]), 0);
        assert_eq!(status(2, &[options, died]), 2);
        assert_eq!(status(3, &[died, stalled, fail]), 5);
        assert_eq!(status(1, &[fail]), 1);
    }
}
