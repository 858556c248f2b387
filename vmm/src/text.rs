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
