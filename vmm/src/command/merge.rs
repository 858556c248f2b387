//! `vmm merge RESULT...`: merges the results of all shards of a search into one.

use std::path::PathBuf;

use clap::Args;
use vmm::confinement;
use vmm::control_characters::spell_out_path;
use vmm::explore::merge::{MergeError, check_all_there, merge};
use vmm::explore::result::{Destination, Part};
use vmm::text::Useless;
use vmm::whole_file::WholeFile;

use super::Refused;
use super::explored::{self, Files};
use super::outputs::Outputs;
use super::search_stats::Output;

/// What to merge.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What vmm explore --shard I/N --result has written, of every I
    #[arg(required = true, value_name = "RESULT")]
    results: Vec<PathBuf>,

    /// Write the schedule that breaks something here, for vmm replay
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,

    /// Write an order that breaks nothing here, if shards were asked for one (--witness)
    #[arg(long, value_name = "FILE")]
    witness: Option<PathBuf>,

    /// Write what all came to here, in the same form
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,

    /// If the shards know too little of what CPUs share, write what they know together here, for
    /// vmm explore
    #[arg(long, value_name = "FILE")]
    sharing: Option<PathBuf>,
}

impl Arguments {
    /// The files that its work needs.
    pub fn files(&self) -> confinement::Files {
        let states: Vec<_> = (self.results.iter().map(|it| Destination::of_states(it))).collect();
        let written = [&self.schedule, &self.witness, &self.result, &self.sharing];
        let written = written.into_iter().flatten();
        confinement::Files::new(self.results.iter().chain(&states), written)
    }
}

/// The exit status if the shards have to be run again with what they know together.
const RUN_AGAIN: u8 = 5;

/// Merges the results that `arguments` name, and returns the exit status that a single process
/// would have had.
///
/// # Errors
/// [`Refused`] if these are not results, or do not belong together.
pub fn run(arguments: &Arguments) -> Result<u8, Refused> {
    let states: Vec<_> = arguments
        .results
        .iter()
        .map(|it| Destination::of_states(it))
        .collect();
    let outputs = Outputs::beside(arguments.results.iter().chain(&states));
    arguments
        .sharing
        .as_deref()
        .map_or(Ok(()), |path| outputs.check(path))?;
    let read = |path: &PathBuf| Part::read(path);
    let parts = arguments.results.iter().map(read).collect::<Result<_, _>>();
    let parts: Vec<_> = parts.map_err(|error: Useless| Refused::of(error.to_string(), &error))?;
    check_all_there(&parts).map_err(refused)?;
    let whole = merge(&parts).map_err(|error| advise(&error, arguments))?;
    let open = |name: &PathBuf| outputs.create(name);
    let files = Files {
        schedule: arguments.schedule.as_ref().map(open).transpose()?,
        page: None,
        witness: arguments.witness.as_ref().map(open).transpose()?,
        result: explored::destination(arguments.result.as_deref(), &outputs)?,
        stats: Output::default(),
    };
    explored::show(&whole, None, files)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn refused(error: MergeError) -> Refused {
    Refused {
        message: error.to_string(),
        status: 2,
    }
}

/// The message for `error`, with advice what to do where something helps.
fn advise(error: &MergeError, arguments: &Arguments) -> Refused {
    let refuse = |advice: String, status| Refused {
        message: format!("{error}{advice}"),
        status,
    };
    match (error.remedy(), &arguments.sharing) {
        (None, _) => refuse(String::new(), 2),
        (Some(_), None) => {
            let advice = "; merge with --sharing FILE, and run all shards again with that";
            refuse(advice.to_owned(), RUN_AGAIN)
        }
        (Some(known), Some(path)) => {
            let name = spell_out_path(path);
            // Text and numbers always have a JSON form.
            let text = serde_json::to_string_pretty(known).unwrap_or_default() + "\n";
            let file = WholeFile::create(path);
            match file.and_then(|file| file.write(|out| out.write_all(text.as_bytes()))) {
                Ok(()) => refuse(
                    format!("; run all shards again with --sharing {name}"),
                    RUN_AGAIN,
                ),
                Err(error) => refuse(format!("; and cannot write {name}: {error}"), 3),
            }
        }
    }
}
