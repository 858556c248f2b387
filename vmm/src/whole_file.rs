//! A file that is written whole or not at all: first under another name beside it, and renamed when
//! it is complete. A reader finds the old contents or the new, never half of them. If writing
//! fails, the file stays as it was.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tracing::info;

/// A file that is about to be written. Dropped before it is [written](Self::write), it leaves
/// nothing behind.
#[derive(Debug)]
pub struct WholeFile {
    path: PathBuf,
    destination: Destination,
}

#[derive(Debug)]
enum Destination {
    /// Replaces the file when it is complete.
    Replacement(NamedTempFile),
    /// A device or a pipe, which no file may replace.
    InPlace(File),
}

impl WholeFile {
    /// Prepares to write the file `path`. A file that exists there stays as it is for now.
    ///
    /// # Errors
    /// If the file could not be written later, as far as that can be told now.
    pub fn create(path: &Path) -> io::Result<Self> {
        // A symbolic link stays a link: the file that it points to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let destination = match fs::metadata(&path) {
            Ok(found) if !found.is_file() => Destination::InPlace(File::create(&path)?),
            Ok(found) => {
                // A file that may not be written may not be replaced either.
                OpenOptions::new().write(true).open(&path)?;
                let mode = found.permissions().mode();
                // Where no file can be created beside it, it is overwritten in place at the end.
                let beside = temporary(directory_of(&path), mode);
                let made = beside.or_else(|_| temporary(&std::env::temp_dir(), mode))?;
                Destination::Replacement(made)
            }
            // Such a name is that of a directory.
            Err(_) if path.as_os_str().as_bytes().ends_with(b"/") => {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            Err(_) => Destination::Replacement(temporary(directory_of(&path), 0o666)?),
        };
        Ok(Self { path, destination })
    }

    /// Writes its contents with `body`, and gives the file its name.
    ///
    /// # Errors
    /// Those of `body`, or of the host. Then there is no file of that name, or the one that was
    /// there before.
    pub fn write(self, body: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let name = self.path.clone();
        self.write_contents(body)?;
        info!("wrote {}", name.display());
        Ok(())
    }

    fn write_contents(self, body: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut file = match self.destination {
            Destination::InPlace(file) => {
                let mut out = BufWriter::new(file);
                body(&mut out)?;
                return out.flush();
            }
            Destination::Replacement(file) => file,
        };
        let mut out = BufWriter::new(&mut file);
        body(&mut out)?;
        out.flush()?;
        drop(out);
        file.as_file().sync_all()?;
        let Err(refused) = file.persist(&self.path) else {
            return Ok(());
        };
        // The file cannot be replaced, as where it is a mount point, or where the new one had to be
        // created in another file system. The new one is complete: it is copied into the old one.
        let mut whole = refused.file;
        whole.rewind()?;
        let mut target = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&self.path)
            .map_err(|_| refused.error)?;
        io::copy(&mut whole, &mut target)?;
        target.sync_all()
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

/// A temporary file in `directory`, created with `mode`, less the umask.
fn temporary(directory: &Path, mode: u32) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".vmm-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn names(directory: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(directory.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn what_comes_to_nothing_leaves_nothing_and_what_was_there() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.json");
        drop(WholeFile::create(&path).unwrap());
        assert!(names(&directory).is_empty());

        fs::write(&path, "before").unwrap();
        drop(WholeFile::create(&path).unwrap());
        let half = |out: &mut dyn Write| {
            out.write_all(b"half of")?;
            Err(io::Error::other("no room"))
        };
        let error = WholeFile::create(&path).unwrap().write(half).unwrap_err();
        assert_eq!(error.to_string(), "no room");
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(names(&directory), ["a.json"]);
    }

    #[test]
    fn what_is_whole_takes_the_place_of_what_was_there_with_its_mode() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.json");
        let link = directory.path().join("link");
        fs::write(&path, "before, and longer").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = WholeFile::create(&link).unwrap();
        file.write(|out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_cannot_be_written_in_the_end_is_refused_at_first() {
        let directory = TempDir::new().unwrap();
        assert!(WholeFile::create(directory.path()).is_err());
        assert!(WholeFile::create(Path::new("/")).is_err());
        assert!(WholeFile::create(&directory.path().join("none/a.json")).is_err());
    }

    #[test]
    fn the_name_of_a_directory_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("{}/new/", folder.path().display());
        let error = WholeFile::create(Path::new(&name)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn a_device_is_written_to_and_stays_one() {
        let file = WholeFile::create(Path::new("/dev/null")).unwrap();
        file.write(|out| out.write_all(b"gone")).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
