//! Why a script stopped before its end, and where: file, line and column. Plain data, which an
//! ending of a run carries; it knows neither the interpreter nor the machine.

use std::fmt;
use std::path::PathBuf;

use crate::control_characters::spell_out_path;

/// The kind of failure, which decides the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Something was not as the script expected it.
    Expectation,
    /// The script asks for what does not exist or makes no sense.
    Bad,
    /// Something that was waited for did not happen, or the script did not end.
    Stuck,
    /// The host has no files or no memory left to read the script.
    Host,
    /// The machine ended while the script still used it. If it died, that decides the status.
    Over,
}

/// Why a script stopped, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The script.
    pub file: PathBuf,
    /// Line and column, from 1, if they are known.
    pub place: Option<(usize, usize)>,
    /// What happened.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = spell_out_path(&self.file);
        match self.place {
            Some((line, column)) => write!(f, "{file}:{line}:{column}: {}", self.message),
            None => write!(f, "{file}: {}", self.message),
        }
    }
}

impl std::error::Error for Failure {}
