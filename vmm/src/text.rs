//! Text that users hand in as files: scripts, cases, schedules, earlier results. Reads it, and no
//! more of it than any such file has; what it means is for others.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes of the longest file. The longest that the VMM itself writes, the results of a search in
/// many parts, has some hundred KiB.
const LONGEST: u64 = 64 << 20;

/// Reads the text in the file at `path`, which can be a pipe.
///
/// # Errors
/// What the host says, that it is no UTF-8, or that it has more than 64 MiB.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(LONGEST + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        let most = LONGEST >> 20;
        let message = format!("it has more than {most} MiB, and is nothing that vmm reads");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}
