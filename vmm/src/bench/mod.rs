//! What IPIs and calls cost on this host: boots the guest once for each kind of them, has it send
//! the same one again and again, and takes times from the guest and counts from whoever counts. How
//! the guest is told so, its manifest says. Knows no table and no file.
//!
//! Times are the guest's own, of each round, between two readings of the TSC. Counts are of the
//! whole machine between the end of the warm-up and the end of the workload, less what the host
//! does anyway, which a run that sends nothing says; divided by the rounds, or by the deliveries.
//! KVM's statistics and timing need no separate passes: what tells the times causes no exit and
//! lies outside of what is timed. Tracepoints do: counting them makes every exit longer.

mod cell;
mod measure;
mod verdict;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cell::{Cell, Choice, cells};
pub use verdict::{Handling, Verdict};
pub use words::{Unmeasurable, Words};

use crate::Config;
use crate::control::operator::OperatorError;
use crate::provenance::{Input, Provenance};
use crate::stats::latency::Spread;
use crate::stats::sources::{Kvm, Source};
use crate::text;
use measure::Background;

/// Version of the JSON document. It changes when a program that reads it could take harm: see
/// docs/formats.md.
pub const SCHEMA: &str = "ipi-lab-bench/1";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Rounds of each run, behind a warm-up of an eighth as many.
    pub rounds: u32,
    /// Runs of each cell.
    pub repetitions: u32,
}

/// Everything that was measured.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Costs {
    /// [`SCHEMA`].
    pub schema: String,
    /// Where it comes from. The words that a guest took are those of each line.
    pub provenance: Provenance,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Rounds of each run.
    pub rounds: u32,
    /// Runs of each cell.
    pub repetitions: u32,
    /// Whether calls, handlers and IPIs were traced meanwhile.
    pub traced: bool,
    /// Who counted, and whether it can be believed.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// In the order in which they were measured.
    pub cells: Vec<Measured>,
}

/// What one cell came to.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// What was measured.
    pub cell: Cell,
    /// The figures, or why there are none.
    pub result: Result<Cost, String>,
}

/// What a round costs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// CPUs that each round went to.
    pub targets: u32,
    /// Until the sender had sent; not for calls.
    pub sent: Option<Spread>,
    /// Until every target had received, and the sender had seen it.
    pub all: Option<Spread>,
    /// The medians of [`Cost::all`] of the runs one by one, ascending, in cycles.
    pub medians: Vec<u64>,
    /// Send operations of a round, by transport.
    pub operations: BTreeMap<String, f64>,
    /// The options of the guest, as it says.
    #[serde(default)]
    pub words: Option<BTreeMap<String, String>>,
    /// What is counted at the sender, per round, by who counts it and its name; by who can be
    /// believed.
    pub sender: BTreeMap<String, f64>,
    /// What is counted at all others together, per target and round.
    pub receivers: BTreeMap<String, f64>,
    /// How the host handles what is sent; `null` if nothing is.
    #[serde(default)]
    pub verdict: Option<Verdict>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A machine without another CPU to send to.
    #[error("an IPI takes two: ask for --vcpus 2 or more")]
    TooFew,
    /// No run was possible.
    #[error(transparent)]
    Run(#[from] crate::Error),
    /// The CPUs that were to be stalled were not.
    #[error("cannot stall the receivers")]
    Stall(#[source] OperatorError),
    /// Somebody wants it to end.
    #[error("interrupted: {message}")]
    Interrupted {
        /// What for.
        message: String,
        /// The exit status of a run that ends so.
        status: u8,
    },
}

/// Measures `cells` one after the other on machines like `config`, whose command line is added to
/// each cell's; `words` are those of its guest. `progress` hears of each before it is measured, by
/// its number. A cell that this guest or host refuses has that for its result. Returns the exit
/// status that it comes to: that of the first run in which something was found or nothing moved; if
/// nothing at all was measured, that of the first run; else 0.
///
/// # Errors
/// If there is no machine at all. What is measured by then is in `costs`.
pub fn measure(
    config: &Config,
    words: &Words,
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

/// What a bench of so many cells comes to, of which these were not measured: whether something was
/// found, and the exit status of that run.
fn status(cells: usize, unmeasured: &[(bool, u8)]) -> u8 {
    let found = unmeasured.iter().find(|(is_finding, _)| *is_finding);
    let refused = unmeasured.first().filter(|_| unmeasured.len() == cells);
    found.or(refused).map_or(0, |(_, status)| *status)
}

impl Costs {
    /// No costs yet, of what `config` and `effort` say, with `guest`.
    pub fn new(config: &Config, guest: Input, effort: Effort) -> Self {
        let kvm = config.sources.as_ref().map_or(Kvm::Unknown, |it| it.kvm);
        Self {
            schema: SCHEMA.to_owned(),
            provenance: Provenance::new(kvm, guest, config.vcpus, &config.append),
            vcpus: config.vcpus,
            rounds: effort.rounds,
            repetitions: effort.repetitions,
            traced: config.trace.timeline,
            sources: config
                .sources
                .as_ref()
                .map_or_else(Vec::new, |sources| sources.list.clone()),
            cells: Vec::new(),
        }
    }

    /// Reads what an earlier bench has written.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text =
            text::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let costs: Self = serde_json::from_str(&text)
            .map_err(|error| format!("{} is no result of vmm bench: {error}", path.display()))?;
        if costs.schema != SCHEMA {
            return Err(format!(
                "{} has the schema {}, not {SCHEMA}; measure it anew",
                path.display(),
                costs.schema
            ));
        }
        Ok(costs)
    }

    /// What `cell` cost, if it was measured.
    pub fn of(&self, cell: &Cell) -> Option<&Cost> {
        let measured = self.cells.iter().find(|measured| measured.cell == *cell)?;
        measured.result.as_ref().ok()
    }
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
