//! `vmm compare A B`: two runs, or two benches, side by side.

use std::path::PathBuf;

use clap::Args;
use vmm::confinement;
use vmm::report::comparison::{Comparison, table};
use vmm::report::page::comparison as page;

use super::Refused;
use super::outputs::Outputs;
use super::printing::{listed, print, print_json};

/// What to compare.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What --stats json of a run has written, or bench --json
    a: PathBuf,

    /// Another of the same kind
    b: PathBuf,

    /// Of reports on several machines, as a script's, take this one of each file, from 0
    #[arg(long, value_name = "N")]
    machine: Option<usize>,

    /// Print JSON instead of tables; see docs/formats.md
    #[arg(long)]
    json: bool,

    /// Write a page for a browser here
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Arguments {
    /// The files that its work needs.
    pub fn files(&self) -> confinement::Files {
        confinement::Files::new([&self.a, &self.b], &self.html)
    }
}

/// Compares what `arguments` name, and returns the exit status.
///
/// # Errors
/// [`Refused`] if that is not possible, or cannot be written.
pub fn run(arguments: &Arguments) -> Result<u8, Refused> {
    let Arguments { a, b, machine, .. } = arguments;
    let comparison = Comparison::of_files(a, b, *machine)
        .map_err(|error| Refused::of(error.to_string(), &error))?;
    let page = arguments.html.as_ref();
    let page = page
        .map(|path| Outputs::beside([a, b]).create(path))
        .transpose()?;
    // A page that cannot be written is no reason not to print the tables.
    let written = page.map(|file| file.write(|mut out| page::write(&mut out, &comparison)));
    let printed = match arguments.json {
        // Text and numbers always have a JSON form.
        true => print_json(&(serde_json::to_string_pretty(&comparison).unwrap_or_default() + "\n")),
        false => print(&table(&comparison)),
    };
    let status = listed("the comparison", printed)?;
    match written {
        Some(Err(error)) => Err(Refused {
            message: format!("cannot write the page: {error}"),
            status: 3,
        }),
        _ => Ok(status),
    }
}
