//! Whether an output can be written to without waiting for a reader that does not read.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::PollFlags;

use crate::peers::happens;

/// A pipe that is ready takes this much without blocking (`PIPE_BUF`).
pub const CHUNK: usize = 4096;

/// Whether up to [`CHUNK`] bytes can be written to `file` without waiting, or can be within `time`.
/// Up to a day.
pub fn is_ready(file: impl AsFd, time: Duration) -> bool {
    happens(file, PollFlags::OUT, time).unwrap_or(false)
}

/// Writes `bytes` to `file`, and gives up once a reader has taken nothing for `time`.
///
/// # Errors
/// Those of `file`, and [`ErrorKind::TimedOut`] if it was given up.
pub fn write_within(mut file: impl Write + AsFd, bytes: &[u8], time: Duration) -> io::Result<()> {
    for chunk in bytes.chunks(CHUNK) {
        if !is_ready(&file, time) {
            return Err(ErrorKind::TimedOut.into());
        }
        file.write_all(chunk)?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        assert!(is_ready(&writer, Duration::ZERO));
        let much = vec![b'x'; 1 << 20];
        let failed = write_within(
            writer.try_clone().unwrap(),
            &much,
            Duration::from_millis(10),
        );
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(!is_ready(&writer, Duration::ZERO));
        drop(writer);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(!read.is_empty() && read.len() < much.len());
    }

    #[test]
    fn what_is_read_meanwhile_arrives_whole() {
        let (mut reader, writer) = io::pipe().unwrap();
        let much = vec![b'x'; 1 << 20];
        let reads = std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read.len()
        });
        write_within(writer, &much, Duration::from_secs(60)).unwrap();
        assert_eq!(reads.join().unwrap(), much.len());
    }
}
