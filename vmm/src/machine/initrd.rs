//! The initrd of a guest: a file that is placed in its memory, of which the start info tells it. What
//! is in it is the guest's affair.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::info;

use crate::control_characters::spell_out_path;
use crate::input;

/// Largest initrd in bytes.
const LARGEST: u64 = 1 << 30;

/// Why there is no initrd.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", spell_out_path(.path))]
pub struct InitrdError {
    path: PathBuf,
    #[source]
    problem: Problem,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error("cannot read the initrd")]
    Read(#[source] io::Error),
    /// It has no bytes.
    #[error("the initrd is empty")]
    Empty,
    /// It has too many.
    #[error("the initrd has more than {LARGEST} bytes")]
    TooLarge,
}

/// An initrd, read.
#[derive(Debug, Clone)]
pub struct Initrd {
    bytes: Arc<[u8]>,
}

impl Initrd {
    /// Reads the file at `path`, which can be a pipe.
    ///
    /// # Errors
    /// [`InitrdError`] names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, InitrdError> {
        let failed = |problem| InitrdError {
            path: path.to_owned(),
            problem,
        };
        let bytes = input::read(path, LARGEST).map_err(|error| {
            failed(match error.kind() {
                ErrorKind::FileTooLarge => Problem::TooLarge,
                _ => Problem::Read(error),
            })
        })?;
        match bytes.len() {
            0 => Err(failed(Problem::Empty)),
            length => {
                info!("read the initrd {}, {length} bytes", spell_out_path(path));
                Ok(Self {
                    bytes: bytes.into(),
                })
            }
        }
    }

    /// Its contents.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of its bytes.
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_cannot_be_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("initrd.gz");
        let why = || Initrd::open(&path).unwrap_err().to_string();
        assert!(
            why().ends_with("initrd.gz: cannot read the initrd"),
            "{}",
            why()
        );
        fs::write(&path, "").unwrap();
        assert!(why().ends_with("the initrd is empty"), "{}", why());
        fs::write(&path, "070701").unwrap();
        assert_eq!(Initrd::open(&path).unwrap().bytes(), b"070701");
    }
}
