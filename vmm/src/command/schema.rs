//! `vmm schema DOCUMENT`: prints the JSON Schema of a document that this version writes.

use clap::{Args, ValueEnum};
use vmm::report::schema;

use super::Refused;
use super::printing::{listed, print_json};

/// Of which document.
#[derive(Debug, Args)]
pub struct Arguments {
    document: Document,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Document {
    /// What --stats json writes
    Report,
    /// What bench --json writes
    Bench,
    /// What compare --json writes
    Compare,
    /// What explore --result writes
    Explore,
    /// What describe --json writes
    Guest,
}

/// Prints the schema, and returns the exit status.
///
/// # Errors
/// [`Refused`] if it cannot be written.
pub fn run(arguments: &Arguments) -> Result<u8, Refused> {
    let schema = match arguments.document {
        Document::Report => schema::report(),
        Document::Bench => schema::bench(),
        Document::Compare => schema::compare(),
        Document::Explore => schema::explore(),
        Document::Guest => schema::guest(),
    };
    listed("the schema", print_json(&schema))
}
