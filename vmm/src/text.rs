//! Reads text files that users name: scripts, cases, schedules, earlier results. Refuses what is
//! longer than any such file. Does not know what the text means.

use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::info;

use crate::control_characters::{spell_out_path, spell_out_values};
use crate::input;

/// Most bytes that a file may have. The longest that the VMM writes itself, a result of a search in
/// many shards, has some hundred KiB.
const LONGEST: u64 = 64 << 20;

/// Why a file is of no use, in a sentence that names it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Useless {
    message: String,
    /// What the host said, if it could not be read.
    source: Option<io::Error>,
}

impl Useless {
    /// A file that cannot be read, as `message` says.
    pub fn unreadable(message: String, error: io::Error) -> Self {
        Self {
            message,
            source: Some(error),
        }
    }
}

/// What is in the file makes no sense, as the sentence says.
impl From<String> for Useless {
    fn from(message: String) -> Self {
        Self {
            message,
            source: None,
        }
    }
}

/// As [`read`], with the name of the file in what is wrong with it.
///
/// # Errors
/// [`Useless`].
pub fn read_named(path: &Path) -> Result<String, Useless> {
    read(path).map_err(|error| {
        let message = format!("cannot read {}: {error}", spell_out_path(path));
        Useless::unreadable(message, error)
    })
}

/// Reads the text in the file at `path`, which can be a pipe.
///
/// # Errors
/// Those of the host and of [`input`]; or the file is not UTF-8, or has more than 64 MiB.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    input::open(path)?
        .take(LONGEST + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        let most = LONGEST >> 20;
        let message = format!("it has more than {most} MiB, and is nothing that vmm reads");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    info!("read {}, {} bytes", spell_out_path(path), text.len());
    Ok(text)
}

/// Reads a JSON document of others. Its strings have no control characters: they are spelled out,
/// but for those in texts of several lines, which are called so in the documents of this program.
///
/// # Errors
/// If it is no such document.
pub fn json<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    // Says in which line something is wrong, which is not known of a value.
    serde_json::from_str::<T>(text)?;
    let mut value: Value = serde_json::from_str(text)?;
    spell_out_values(&mut value, &["case", "texts"]);
    serde_json::from_value(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::limits;

    #[test]
    fn what_the_host_lacks_is_known_of_a_file_that_cannot_be_read() {
        let lack = io::Error::from_raw_os_error(libc::ENFILE);
        let error = Useless::unreadable("cannot read it".to_owned(), lack);
        assert!(limits::are_reached(&error));
        let missing = read_named(Path::new("/not/there\n")).unwrap_err();
        assert!(!limits::are_reached(&missing));
        let why = missing.to_string();
        assert!(why.starts_with("cannot read /not/there\\n: "), "{why}");
    }
}
