//! The one way in which files are written: whole or not at all. A file is first written under
//! another name beside it, and renamed when it is complete: a reader finds the old contents or the
//! new, never half of them, and if writing fails, the file stays as it was. What is no regular file
//! is written to in place. Knows nothing of what is written.

mod in_place;
mod temporary;

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Seek, Write};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tempfile::NamedTempFile;
use tracing::info;

use in_place::InPlace;

use crate::control_characters::spell_out_path;

/// As many symbolic links are followed as the host follows.
const MOST_LINKS: usize = 40;

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
    /// A device, a pipe, or what is open already, which no file may replace.
    InPlace(InPlace),
}

impl WholeFile {
    /// Prepares to write the file `path`. A file that exists there stays as it is for now.
    ///
    /// # Errors
    /// If the file could not be written later, as far as that can be told now.
    #[expect(clippy::disallowed_methods, reason = "this is its place")]
    pub fn create(path: &Path) -> io::Result<Self> {
        // Such a name is that of a directory.
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let path = match Place::of(path)? {
            Place::Path(path) => path,
            Place::Descriptor(number) => {
                let destination = Destination::InPlace(InPlace::of_descriptor(number)?);
                let path = path.to_owned();
                return Ok(Self { path, destination });
            }
        };
        let destination = match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            Ok(found) if !found.is_file() => Destination::InPlace(InPlace::open(&path)?),
            Ok(found) => {
                // A file that may not be written may not be replaced either.
                OpenOptions::new().write(true).open(&path)?;
                let mode = found.permissions().mode();
                // Where no file can be created beside it, it is overwritten in place at the end.
                let beside = temporary::create(directory_of(&path), mode);
                let made = beside.or_else(|_| temporary::create(&std::env::temp_dir(), mode))?;
                Destination::Replacement(made)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Destination::Replacement(temporary::create(directory_of(&path), 0o666)?)
            }
            // No file can ever have that name, such as one that is too long.
            Err(error) => return Err(error),
        };
        Ok(Self { path, destination })
    }

    /// Whether there is a file, which it will replace.
    pub fn replaces_another(&self) -> bool {
        matches!(self.destination, Destination::Replacement(_)) && self.path.exists()
    }

    /// Writes its contents with `body`, and gives the file its name.
    ///
    /// # Errors
    /// Those of `body`, or of the host. Then there is no file of that name, or the one that was
    /// there before.
    pub fn write(self, body: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let name = self.path.clone();
        match self.destination {
            Destination::InPlace(file) => fill(file, body)?,
            Destination::Replacement(mut file) => {
                fill(&mut file, body)?;
                file.as_file().sync_all()?;
                take_place(file, &self.path)?;
            }
        }
        info!("wrote {}", spell_out_path(&name));
        Ok(())
    }
}

/// A file of several documents that are not all known at once. Whenever one is added, the file is
/// replaced by one that has all of them: it grows, and is whole at any time. The file that was there
/// before stays until the first is added.
#[derive(Debug)]
pub struct GrowingFile {
    path: PathBuf,
    /// For the next document; made anew for each, but for what is written in place.
    next: Option<WholeFile>,
    documents: Vec<u8>,
}

impl GrowingFile {
    /// Prepares to write the file `path`.
    ///
    /// # Errors
    /// As [`WholeFile::create`].
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            next: Some(WholeFile::create(path)?),
            documents: Vec::new(),
        })
    }

    /// Adds a document.
    ///
    /// # Errors
    /// If it cannot be written. The file has the documents before it then, and is tried with this
    /// one again when the next is added.
    pub fn add(&mut self, document: &[u8]) -> io::Result<()> {
        let next = self.next.take();
        let next = next.map_or_else(|| WholeFile::create(&self.path), Ok)?;
        match next {
            WholeFile {
                path,
                destination: Destination::InPlace(mut file),
            } => {
                let written = file.write_all(document);
                let destination = Destination::InPlace(file);
                self.next = Some(WholeFile { path, destination });
                written
            }
            replacement => {
                self.documents.extend_from_slice(document);
                replacement.write(|out| out.write_all(&self.documents))
            }
        }
    }
}

fn fill(file: impl Write, body: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    let written = body(&mut out).and_then(|()| out.flush());
    // What could not be written is not tried again when it is dropped, which could wait once more.
    drop(out.into_parts());
    written
}

/// Gives `file`, which is complete, the name `path`.
#[expect(clippy::disallowed_methods, reason = "this is its place")]
fn take_place(file: NamedTempFile, path: &Path) -> io::Result<()> {
    let Err(refused) = file.persist(path) else {
        return Ok(());
    };
    // The file cannot be replaced, as where it is a mount point, or where the new one had to be
    // created in another file system. The new one is complete: it is copied into the old one.
    let mut whole = refused.file;
    whole.rewind()?;
    let mut target = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|_| refused.error)?;
    // While there is no room for it, the old one is not touched.
    let length = whole.as_file().metadata()?.len();
    // Not every file system can say so before.
    let room = fallocate(&target, FallocateFlags::KEEP_SIZE, 0, length.max(1));
    if let Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) = room {
        return Err(error.into());
    }
    io::copy(&mut whole, &mut target)?;
    target.set_len(length)?;
    target.sync_all()
}

/// Where something is written that is called by a path.
enum Place {
    /// At this path, which is no symbolic link. A link stays one: the file that it points to is
    /// replaced, or made.
    Path(PathBuf),
    /// To what this process has open.
    Descriptor(RawFd),
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let open = ["/proc/self/fd", "/proc/thread-self/fd"].map(|it| fs::canonicalize(it).ok());
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            // Without a name it is a directory; without a folder, nothing can be there.
            let (Some(name), Ok(folder)) =
                (path.file_name(), fs::canonicalize(directory_of(&path)))
            else {
                return Ok(Self::Path(path));
            };
            let place = folder.join(name);
            // These links do not name what they lead to.
            if open.iter().flatten().any(|it| *it == folder) {
                let number = name.to_str().and_then(|name| name.parse().ok());
                return Ok(number.map_or(Self::Path(place), Self::Descriptor));
            }
            match fs::read_link(&place) {
                Ok(target) => path = folder.join(target),
                Err(_) => return Ok(Self::Path(place)),
            }
        }
        Err(Errno::LOOP.into())
    }
}

/// Where the file is, or will be, to which `path` leads by whatever links. `None` if that is what
/// this process has open, or no file can be there.
pub fn place_of(path: &Path) -> Option<PathBuf> {
    match Place::of(path) {
        Ok(Place::Path(path)) => Some(path),
        Ok(Place::Descriptor(_)) | Err(_) => None,
    }
}

/// The directory that `path` names its file in.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

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
        // NAME_MAX
        let long = |letters| directory.path().join("a".repeat(letters));
        let error = WholeFile::create(&long(256)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
        let file = WholeFile::create(&long(255)).unwrap();
        file.write(|out| out.write_all(b"new")).unwrap();
        assert!(long(255).is_file());
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

    #[test]
    fn a_link_to_what_is_not_there_yet_stays_one() {
        let directory = TempDir::new().unwrap();
        let (path, link) = (directory.path().join("new"), directory.path().join("link"));
        std::os::unix::fs::symlink("new", &link).unwrap();
        let file = WholeFile::create(&link).unwrap();
        file.write(|out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let circle = directory.path().join("circle");
        std::os::unix::fs::symlink("circle", &circle).unwrap();
        assert!(WholeFile::create(&circle).is_err());
    }

    #[test]
    fn a_growing_file_has_whole_documents_and_those_before_until_the_first() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a.json");
        fs::write(&path, "before").unwrap();
        let text = || fs::read_to_string(&path).unwrap();
        let mut file = GrowingFile::create(&path).unwrap();
        assert_eq!(text(), "before");
        for all in ["one\n", "one\ntwo\n"] {
            file.add(&all.as_bytes()[all.len() - 4..]).unwrap();
            assert_eq!(text(), all);
        }
        drop(file);
        assert_eq!(names(&directory), ["a.json"]);
        drop(GrowingFile::create(&path).unwrap());
        assert_eq!(text(), "one\ntwo\n");
    }
}
