//! Two runs, or two benches, side by side: first what differs in what was run, then each figure of
//! both with its difference. Works on documents that were written before; measures nothing, and
//! leaves to others how it is shown.

mod benches;
pub mod difference;
mod read;
mod runs;
mod setup;
mod table;

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use crate::provenance::Provenance;
pub use benches::{setup_of, whole_round};
use difference::{Difference, Sample};
use read::Read;
pub use read::Unusable;
pub use table::table;

/// Version of the JSON document. It changes when a program that reads it could take harm: see
/// docs/formats.md.
pub const SCHEMA: &str = "ipi-lab-compare/1";

/// Two documents side by side.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What is compared.
    pub of: Kind,
    /// The first.
    pub a: Side,
    /// The second.
    pub b: Side,
    /// What differs in what was run and in how it ended, but for when.
    pub differs: Vec<Differing>,
    /// What else a reader of the figures should know.
    pub notes: Vec<String>,
    /// The figures that both have.
    pub groups: Vec<Group>,
    /// What the first has alone.
    pub only_a: Vec<String>,
    /// What the second has alone.
    pub only_b: Vec<String>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Reports of runs.
    Runs,
    /// Figures of benches.
    Benches,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Side {
    /// The file, as it was given.
    pub file: String,
    /// Where its figures come from.
    pub provenance: Provenance,
}

/// Something in which they differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Differing {
    /// What.
    pub what: String,
    /// What it is in the first.
    pub a: String,
    /// What it is in the second.
    pub b: String,
}

/// Figures about one thing.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Group {
    /// What they are about: a line of a bench, or a part of a report.
    pub name: String,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// A figure of both.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// Its unit: `ns`, `s`, `cycles`, or nothing for counts.
    pub unit: &'static str,
    /// In the first.
    pub a: Sample,
    /// In the second.
    pub b: Sample,
    /// From the first to the second.
    #[serde(flatten)]
    pub difference: Difference,
}

impl Differing {
    /// `None` if `a` and `b` are the same.
    fn between(what: impl Into<String>, a: &impl ToString, b: &impl ToString) -> Option<Self> {
        let (a, b) = (a.to_string(), b.to_string());
        (a != b).then(|| Self {
            what: what.into(),
            a,
            b,
        })
    }
}

impl Figure {
    fn new(name: impl Into<String>, unit: &'static str, a: Sample, b: Sample) -> Self {
        Self {
            name: name.into(),
            unit,
            difference: Difference::between(&a, &b),
            a,
            b,
        }
    }
}

impl Comparison {
    /// Compares the documents in two files. If they have the reports of several machines, `machine`
    /// says which.
    ///
    /// # Errors
    /// [`Unusable`] says why that is not possible.
    pub fn of_files(a: &Path, b: &Path, machine: Option<usize>) -> Result<Self, Unusable> {
        let (first, second) = (Read::from(a, machine)?, Read::from(b, machine)?);
        let side = |path: &Path, provenance: &Provenance| Side {
            file: path.to_string_lossy().into_owned(),
            provenance: provenance.clone(),
        };
        match (&first, &second) {
            (Read::Run(first), Read::Run(second)) => {
                let sides = (side(a, &first.provenance), side(b, &second.provenance));
                Ok(runs::compare(sides, first, second))
            }
            (Read::Bench(first), Read::Bench(second)) => {
                let sides = (side(a, &first.provenance), side(b, &second.provenance));
                Ok(benches::compare(sides, first, second))
            }
            (one, other) => Err(Unusable::Kinds {
                a: a.to_owned(),
                is_a: one.kind(),
                b: b.to_owned(),
                is_b: other.kind(),
            }),
        }
    }

    /// A comparison of these two, without any figure yet.
    fn new(of: Kind, (a, b): (Side, Side)) -> Self {
        Self {
            schema: SCHEMA,
            of,
            differs: setup::differing(&a.provenance, &b.provenance),
            a,
            b,
            notes: Vec::new(),
            groups: Vec::new(),
            only_a: Vec::new(),
            only_b: Vec::new(),
        }
    }
}
