//! Reads a document that is to be compared, and says in a sentence why it cannot be. Trusts nothing
//! in it, and compares nothing.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Deserializer, Value};

use crate::bench::{self, Costs};
use crate::control_characters::{spell_out_path, spell_out_values};
use crate::provenance::Provenance;
use crate::report;
use crate::report::leaves::{Leaf, leaves};
use crate::stats::sources::Source;
use crate::text;

/// Why a file cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The file cannot be read.
    #[error("cannot read {}: {problem}", spell_out_path(.path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        problem: std::io::Error,
    },
    /// There is no document in it that can be compared.
    #[error("{} {problem}", spell_out_path(.path))]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong, as a clause without a subject.
        problem: String,
    },
    /// A run has no figures that a bench has.
    #[error(
        "cannot compare {} with {}: the first is {is_a}, and the second is {is_b}",
        spell_out_path(.a), spell_out_path(.b)
    )]
    Kinds {
        /// The first file.
        a: PathBuf,
        /// What it is.
        is_a: &'static str,
        /// The second file.
        b: PathBuf,
        /// What it is.
        is_b: &'static str,
    },
}

/// A document.
#[derive(Debug)]
pub enum Read {
    /// The report on a run.
    Run(Box<Run>),
    /// The figures of a bench.
    Bench(Box<Costs>),
}

/// What a report says besides its figures.
#[derive(Debug, Deserialize)]
pub struct Run {
    /// Where it comes from.
    pub provenance: Provenance,
    /// How it ended, in one word.
    pub result: String,
    /// What the figures of KVM and of exits cover.
    pub window: String,
    /// Who counted.
    pub sources: Vec<Source>,
    /// Its figures.
    #[serde(skip)]
    pub leaves: Vec<Leaf>,
}

impl Read {
    /// The document in the file at `path`; of the reports of several machines, that of `machine`.
    ///
    /// # Errors
    /// [`Unusable`] says why there is none.
    pub fn from(path: &Path, machine: Option<usize>) -> Result<Self, Unusable> {
        let text = text::read(path).map_err(|problem| Unusable::Unreadable {
            path: path.to_owned(),
            problem,
        })?;
        Self::parse(&text, machine).map_err(|problem| Unusable::Document {
            path: path.to_owned(),
            problem,
        })
    }

    fn parse(text: &str, machine: Option<usize>) -> Result<Self, String> {
        let documents: Result<Vec<Value>, _> = Deserializer::from_str(text).into_iter().collect();
        let mut documents = documents.map_err(|error| match error.is_eof() {
            true => format!("is cut off: {error}"),
            false => format!("is not JSON: {error}"),
        })?;
        for document in &mut documents {
            spell_out_values(document, &[]);
        }
        let count = documents.len();
        let document = match (count, machine) {
            (0, _) => return Err("is empty".to_owned()),
            (_, Some(number)) if number >= count => {
                return Err(format!(
                    "has the documents of {count} machines, from 0, and none of machine {number}"
                ));
            }
            (_, Some(number)) => documents.swap_remove(number),
            (1, None) => documents.remove(0),
            (_, None) => {
                return Err(format!(
                    "has the documents of {count} machines; choose one with --machine, from 0"
                ));
            }
        };
        let schema = document.get("schema").and_then(Value::as_str);
        match schema {
            Some(report::SCHEMA) => Run::of(&document).map(|run| Self::Run(Box::new(run))),
            Some(bench::SCHEMA) => serde_json::from_value(document)
                .map(|costs| Self::Bench(Box::new(costs)))
                .map_err(|error| format!("is no result of vmm bench: {error}")),
            Some(other) => Err(refusal(other)),
            None => Err(
                "is JSON without the key \"schema\", and so neither a run (--stats json) nor a \
                 bench (bench --json)"
                    .to_owned(),
            ),
        }
    }

    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Run(_) => "the report on a run",
            Self::Bench(_) => "the figures of a bench",
        }
    }
}

impl Run {
    fn of(document: &Value) -> Result<Self, String> {
        let run = Self::deserialize(document)
            .map_err(|error| format!("is no report of a run: {error}"))?;
        let leaves = leaves(document);
        Ok(Self { leaves, ..run })
    }
}

/// Why a document with the schema `other` is not compared.
fn refusal(other: &str) -> String {
    let kind = |schema: &str| schema.split('/').next().unwrap_or_default().to_owned();
    let readable = [report::SCHEMA, bench::SCHEMA];
    match readable.into_iter().find(|it| kind(it) == kind(other)) {
        Some(known) => format!("has the schema {other:?}, not {known}; measure it anew"),
        None => format!(
            "has the schema {other:?}; only runs ({}) and benches ({}) are compared",
            report::SCHEMA,
            bench::SCHEMA
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_compared_is_refused_with_a_sentence() {
        for (text, machine, says) in [
            ("", None, "is empty"),
            (" \n", None, "is empty"),
            ("{\"schema\": \"ipi-lab/3\"", None, "is cut off"),
            ("vCPUs 4", None, "is not JSON"),
            ("[1]", None, "without the key"),
            ("{\"schema\": 2}", None, "without the key"),
            ("{\"schema\": \"ipi-lab/1\"}", None, "not ipi-lab/3"),
            (
                "{\"schema\": \"ipi-lab-bench/9\"}",
                None,
                "not ipi-lab-bench/1",
            ),
            ("{\"schema\": \"ipi-lab-explore/1\"}", None, "only runs"),
            ("{\"schema\": \"ipi-lab/3\"}", None, "missing field"),
            ("{\"schema\": \"ipi-lab-bench/1\"}", None, "missing field"),
            ("{} {}", None, "--machine"),
            ("{} {}", Some(2), "none of machine 2"),
            ("{} {", Some(0), "is cut off"),
        ] {
            let problem = Read::parse(text, machine).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
        let deep = "[".repeat(100_000);
        assert!(Read::parse(&deep, None).is_err());
    }
}
