//! `--gdb`: where to listen for gdb, and gdb on a schedule, for the commands that have one (`vmm replay`
//! and `vmm explore`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use vmm::explore::Replay;
use vmm::explore::debug::{Recording, serve};
use vmm::explore::schedule::Schedule;
use vmm::gdb;
use vmm::machine::guest::Guest;

use super::explored::refused;
use super::interruption::interrupted;
use super::{Refused, chain, complain};

/// Where to listen for gdb.
#[derive(Debug, Args)]
pub struct GdbArgument {
    /// Listen for gdb at this UNIX socket, or at a port of this host: tcp:127.0.0.1:1234. It goes
    /// forwards and backwards through the schedule. See docs/debugging.md
    #[arg(long, value_name = "ADDRESS")]
    gdb: Option<gdb::Address>,
}

impl GdbArgument {
    /// The file that it makes.
    pub fn file(&self) -> Option<&PathBuf> {
        file_of(self.gdb.as_ref())
    }

    /// Listens for gdb, if it is to be served.
    ///
    /// # Errors
    /// [`Refused`] if it cannot listen there.
    pub fn listener(&self) -> Result<Option<gdb::Listener>, Refused> {
        listen(self.gdb.as_ref())
    }
}

/// The file that listening at `address` makes.
pub fn file_of(address: Option<&gdb::Address>) -> Option<&PathBuf> {
    match address {
        Some(gdb::Address::Unix(path)) => Some(path),
        _ => None,
    }
}

/// Listens for gdb at `address`, if there is one.
///
/// # Errors
/// [`Refused`] if it cannot listen there.
pub fn listen(address: Option<&gdb::Address>) -> Result<Option<gdb::Listener>, Refused> {
    let listener = address.map(gdb::Listener::at).transpose();
    listener.map_err(|error| Refused::of(chain(&error), &error))
}

/// A schedule that is to be debugged, and on what.
#[derive(Debug, Clone, Copy)]
pub struct Debugged<'a> {
    /// The schedule.
    pub schedule: &'a Schedule,
    /// The image.
    pub guest: &'a Path,
    /// As [`Replay::any_image`].
    pub any_image: bool,
    /// As [`Replay::time`].
    pub time: Option<Duration>,
}

/// Serves gdb at `listener`, until it leaves.
///
/// # Errors
/// [`Refused`] if the schedule cannot be replayed, or gdb had to be let go.
pub fn debug(debugged: Debugged<'_>, listener: &gdb::Listener) -> Result<(), Refused> {
    let replay = Replay {
        guest: &Guest::from(debugged.guest),
        schedule: debugged.schedule,
        times: 1,
        any_image: debugged.any_image,
        time: debugged.time,
    };
    let recording = Recording::make(&replay, interrupted);
    let mut recording = recording.map_err(|error| refused(&error))?;
    complain(&format!(
        "waits for gdb: target remote {}",
        listener.address()
    ));
    serve(listener, &mut recording).map_err(|error| Refused {
        message: chain(&error),
        status: 3,
    })
}
