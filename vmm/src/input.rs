//! Opens the files that users name to be read. They can be pipes, of which the other end is waited
//! for with a limit: for one that does not come, and for one that comes and says nothing. Does not
//! know what is in them.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::peers::{LOOK, PEER, SILENCE, happens};

/// A file that is read.
#[derive(Debug)]
pub struct Input {
    file: File,
    /// If it is a pipe.
    pipe: Option<Pipe>,
}

#[derive(Debug)]
struct Pipe {
    /// Whether somebody has opened it to write to it.
    has_writer: bool,
    peer: Duration,
    silence: Duration,
}

/// Opens the file at `path`.
///
/// # Errors
/// Those of the host. Reading from a pipe fails with [`ErrorKind::TimedOut`] if nobody has opened it
/// to write to it within [`PEER`], or nothing is written for [`SILENCE`].
#[expect(clippy::disallowed_methods, reason = "this is its place")]
pub fn open(path: &Path) -> io::Result<Input> {
    // Without O_NONBLOCK this waits for whoever writes to a pipe.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let is_pipe = file.metadata()?.file_type().is_fifo();
    if !is_pipe {
        // Somebody may type it at a terminal.
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    }
    let pipe = is_pipe.then_some(Pipe {
        has_writer: false,
        peer: PEER,
        silence: SILENCE,
    });
    Ok(Input { file, pipe })
}

/// Reads the whole file at `path`, of at most `most` bytes.
///
/// # Errors
/// As [`open`] and reading; [`ErrorKind::FileTooLarge`] if it has more.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipe else {
            return self.file.read(buffer);
        };
        let begun = Instant::now();
        loop {
            match self.file.read(buffer) {
                // What nobody has opened yet looks like what everybody has closed, but for this.
                Ok(0)
                    if !pipe.has_writer
                        && !happens(&self.file, PollFlags::HUP, Duration::ZERO)? =>
                {
                    if begun.elapsed() >= pipe.peer {
                        let seconds = pipe.peer.as_secs();
                        let why = format!(
                            "nobody has opened this pipe to write to it within {seconds} s"
                        );
                        return Err(io::Error::new(ErrorKind::TimedOut, why));
                    }
                    // The host tells nobody when a writer comes.
                    thread::sleep(LOOK);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    pipe.has_writer = true;
                    if !happens(&self.file, PollFlags::IN, pipe.silence)? {
                        let seconds = pipe.silence.as_secs();
                        let why = format!("nobody has written to this pipe for {seconds} s");
                        return Err(io::Error::new(ErrorKind::TimedOut, why));
                    }
                }
                read => {
                    pipe.has_writer = true;
                    return read;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn pipe() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        (folder, path)
    }

    fn opened(path: &Path, limits: u64) -> Input {
        let mut input = open(path).unwrap();
        let limit = Duration::from_millis(limits);
        input.pipe = Some(Pipe {
            has_writer: false,
            peer: limit,
            silence: limit,
        });
        input
    }

    fn text(mut input: Input) -> io::Result<String> {
        let mut text = String::new();
        input.read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn what_is_longer_than_it_may_be_is_not_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(super::read(&path, 5).unwrap(), b"12345");
        let error = super::read(&path, 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_pipe_without_a_writer_is_not_waited_for_for_ever() {
        let (_folder, path) = pipe();
        let error = text(opened(&path, 20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("opened"), "{error}");
    }

    #[test]
    fn a_writer_that_says_nothing_is_given_up() {
        let (_folder, path) = pipe();
        let input = opened(&path, 20);
        let mut writer = File::options().write(true).open(&path).unwrap();
        writer.write_all(b"half").unwrap();
        let error = text(input).unwrap_err();
        assert!(error.to_string().contains("written"), "{error}");
    }

    #[test]
    fn what_is_written_by_whoever_comes_late_is_read() {
        let (_folder, path) = pipe();
        for said in ["", "all of it"] {
            let writer = {
                let path = path.clone();
                thread::spawn(move || std::fs::write(path, said).unwrap())
            };
            assert_eq!(text(open(&path).unwrap()).unwrap(), said);
            writer.join().unwrap();
        }
    }
}
