//! Outputs that no file may take the place of: pipes, devices, and what is open already
//! (`/dev/stdout`, `/proc/self/fd/N`). They are written to as they are, and a peer that does not
//! come, or does not read, is waited for with a limit. Knows nothing of what is written.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl};

use crate::peers::{LOOK, PEER, SILENCE};
use crate::writable::{CHUNK, is_ready};

/// Such an output, open.
#[derive(Debug)]
pub(super) struct InPlace {
    file: File,
    silence: Duration,
}

impl InPlace {
    /// Opens what is at `path`: a pipe or a device. Waits up to [`PEER`] for somebody to read from a
    /// pipe.
    ///
    /// # Errors
    /// Those of the host, and [`ErrorKind::TimedOut`].
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::open_within(path, PEER)
    }

    #[expect(clippy::disallowed_methods, reason = "this is its place")]
    fn open_within(path: &Path, limit: Duration) -> io::Result<Self> {
        let is_pipe = std::fs::metadata(path)?.file_type().is_fifo();
        let deadline = Instant::now() + limit;
        loop {
            // Without O_NONBLOCK this waits for whoever reads from a pipe.
            let opened = File::options()
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(path);
            match opened {
                Err(error) if is_pipe && error.raw_os_error() == Some(libc::ENXIO) => {
                    if Instant::now() >= deadline {
                        let seconds = limit.as_secs();
                        let why = format!(
                            "nobody has opened this pipe to read from it within {seconds} s"
                        );
                        return Err(io::Error::new(ErrorKind::TimedOut, why));
                    }
                    // The host tells nobody when a reader comes.
                    thread::sleep(LOOK);
                }
                opened => {
                    return opened.map(|file| Self {
                        file,
                        silence: SILENCE,
                    });
                }
            }
        }
    }

    /// What this process has open as `descriptor`, at the place where it stands.
    ///
    /// # Errors
    /// It is not open, or not for writing.
    pub(super) fn of_descriptor(descriptor: RawFd) -> io::Result<Self> {
        // SAFETY: the call takes no pointers; a number that is no open file is an error.
        let copy = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 0) };
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this file descriptor for us, and nothing else uses it.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        if !fcntl_getfl(&copy)?.intersects(OFlags::WRONLY | OFlags::RDWR) {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        Ok(Self {
            file: File::from(copy),
            silence: SILENCE,
        })
    }
}

impl Write for InPlace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if !is_ready(&self.file, self.silence) {
                let seconds = self.silence.as_secs();
                let why = format!("nobody has read what was written to it for {seconds} s");
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
            match self.file.write(&bytes[..bytes.len().min(CHUNK)]) {
                // It was full again by then.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn pipe() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        (folder, path)
    }

    #[test]
    fn a_pipe_without_a_reader_is_not_waited_for_for_ever() {
        let (_folder, path) = pipe();
        let error = InPlace::open_within(&path, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_reader_that_comes_late_reads_all() {
        let (_folder, path) = pipe();
        let reader = {
            let path = path.clone();
            thread::spawn(move || std::fs::read(path).unwrap())
        };
        let mut opened = InPlace::open(&path).unwrap();
        let much = vec![b'x'; 1 << 20];
        opened.write_all(&much).unwrap();
        drop(opened);
        assert_eq!(reader.join().unwrap(), much);
    }

    #[test]
    fn a_reader_that_does_not_read_is_given_up() {
        let (reader, writer) = io::pipe().unwrap();
        let mut opened = InPlace::of_descriptor(writer.as_raw_fd()).unwrap();
        opened.silence = Duration::from_millis(20);
        let error = opened.write_all(&[b'x'; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let read_only = InPlace::of_descriptor(reader.as_raw_fd());
        assert_eq!(read_only.unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn what_is_open_is_written_to_where_it_stands() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before ").unwrap();
        let mut opened = InPlace::of_descriptor(file.as_raw_fd()).unwrap();
        opened.write_all(b"meanwhile ").unwrap();
        file.write_all(b"behind").unwrap();
        let mut text = String::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before meanwhile behind");
    }
}
