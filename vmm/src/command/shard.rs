//! `vmm shard`: the process that searches one part for [`super::jobs`]. It reads what to do as one
//! JSON document from standard input, reports its progress on standard output, one line of JSON
//! each time, and writes its result to a file. Only the `vmm` that started it uses this form.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vmm::explore::result::{Destination, Part};
use vmm::explore::search::Counts;
use vmm::explore::{Config, Progress, explore};

use super::Refused;
use super::explored;
use super::interruption::{self, interrupted};
use super::outputs::cannot_write;

/// What the process is told to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What to search, and how.
    pub config: Config,
    /// The file for the result, which need not have a name in Unicode.
    pub result: OsString,
}

/// How far the process is.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct ShardProgress {
    /// What it has done.
    pub counts: Counts,
    /// How many choices it has left to try, if it has said so.
    pub frontier: Option<u64>,
}

/// Searches as standard input says, and returns the exit status.
///
/// # Errors
/// [`Refused`] if that was not possible.
pub fn run() -> Result<u8, Refused> {
    let order: Order = serde_json::from_reader(io::stdin().lock()).map_err(|error| Refused {
        message: format!("standard input is no order of vmm explore --jobs: {error}"),
        status: 2,
    })?;
    let path = PathBuf::from(order.result);
    let destination = Destination::new(&path).map_err(|error| cannot_write(&path, &error))?;
    interruption::catch()?;
    let outcome = explore(&order.config, interrupted, &mut tell)
        .map_err(|error| explored::refused(&error))?;
    destination
        .write(&Part::new(&order.config, &outcome))
        .map_err(|error| cannot_write(&path, &error))?;
    Ok(0)
}

/// Reports progress. If the process that started this one has closed the pipe, ends the search as
/// a signal would.
fn tell(progress: &Progress<'_>) {
    let Progress::Searching { counts, frontier } = *progress else {
        return;
    };
    let counts = *counts;
    let written = serde_json::to_string(&ShardProgress { counts, frontier })
        .map_err(io::Error::from)
        .and_then(|line| writeln!(io::stdout(), "{line}"));
    if written.is_err() {
        interruption::pretend(libc::SIGPIPE);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use vmm::explore::case::Case;
    use vmm::explore::memory::Memory;
    use vmm::explore::schedule::Granularity;
    use vmm::explore::search::sampled::Sampling;
    use vmm::explore::{Shard, Strategy};
    use vmm::machine::guest::Guest;
    use vmm::provenance::Input;
    use vmm::stats::sources::Kvm;

    fn order() -> Order {
        let case = "cpus 2\nappend queue=filo\n0: single 1; many 1 wait\nexpect lost with a=b\n";
        let way = Sampling::Priorities {
            changes: 3,
            length: 7,
        };
        Order {
            config: Config {
                guest: Guest::file(OsStr::from_bytes(b"guest\xff.bin")),
                case: Case::parse(case).unwrap(),
                case_file: Some(Input::new(Path::new("a.case"), case.as_bytes())),
                kvm: Kvm::Emulated,
                append: "mask-check=off".to_owned(),
                granularity: Granularity::Probe,
                memory: Memory::Tso,
                strategy: Strategy::Sampled(way, 9),
                seed: u64::MAX,
                time: Some(Duration::from_micros(1_500_001)),
                states: Some(11),
                shard: Shard { index: 1, of: 3 },
                known: None,
                check_keys: true,
                every_exit: true,
                shrink: Duration::from_millis(13),
            },
            result: OsStr::from_bytes(b"result\xff").to_owned(),
        }
    }

    /// Whatever is written down is read again, to the last of it.
    #[test]
    fn an_order_is_understood_as_it_was_meant() {
        let order = order();
        let text = serde_json::to_string(&order).unwrap();
        let read: Order = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{read:#?}"), format!("{order:#?}"));
    }

    #[test]
    fn what_it_does_not_know_is_refused() {
        let mut order = serde_json::to_value(order()).unwrap();
        order["config"]["preemptions"] = 2.into();
        let error = serde_json::from_value::<Order>(order).unwrap_err();
        assert!(error.to_string().contains("preemptions"), "{error}");
    }
}
