//! The log of `--log`: what the command does, on standard error, with time and thread. The library
//! only says what it does; who listens is decided here.

use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;

use super::printing::Log;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// What went wrong, and goes on all the same
    Warn,
    /// The stages of a run, a search or a bench, and the files that are read and written
    Info,
    /// What threads do as well: they start and end, are kicked, paused and held
    Debug,
    /// Everything
    Trace,
}

/// Set once something is logged.
static ON: OnceLock<()> = OnceLock::new();

/// Logs from now on.
pub fn begin(level: Level) {
    let level = match level {
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_thread_names(true)
        .with_ansi(false)
        .with_target(false)
        // It would be told to standard error again, and panic.
        .log_internal_errors(false)
        .with_writer(|| Log);
    // Fails only if there is a log already.
    if log.try_init().is_ok() {
        let _ = ON.set(());
    }
}

/// Whether anything is logged.
pub fn is_on() -> bool {
    ON.get().is_some()
}
