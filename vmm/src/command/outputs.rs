//! The files that a subcommand writes: each is to have a name of its own, and none the name of a
//! file that is read.

use std::cell::RefCell;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vmm::control_characters::spell_out_path;
use vmm::whole_file::{WholeFile, place_of};

use super::Refused;

/// How the forms of test results begin.
const RESULTS: [&[u8; 5]; 2] = [b"<?xml", b"KTAP "];

/// The output files of a subcommand.
#[derive(Debug, Default)]
pub struct Outputs {
    inputs: Vec<PathBuf>,
    /// The regular files that are written.
    written: RefCell<Vec<Written>>,
}

/// A regular file that is written.
#[derive(Debug)]
struct Written {
    /// As it is called on the command line.
    name: PathBuf,
    /// Its name without links and detours.
    place: PathBuf,
    /// Whether it turned out to be an image, and stays what it is.
    is_spared: bool,
}

impl Outputs {
    /// None yet, of a subcommand that reads `inputs`.
    pub fn beside<'a>(inputs: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        Self {
            inputs: inputs.into_iter().cloned().collect(),
            written: RefCell::default(),
        }
    }

    /// Checks that the file `name` may be written, and remembers that it is.
    ///
    /// # Errors
    /// [`Refused`] if it is an input, or another output.
    pub fn check(&self, name: &Path) -> Result<(), Refused> {
        let Some(place) = place(name) else {
            return Ok(());
        };
        if self.inputs.iter().any(|input| is_at(input, &place)) {
            return Err(cannot_write(name, &"the run needs what is in it"));
        }
        let is_written = |it: &Written| it.place == place || is_at(&it.place, &place);
        if self.written.borrow().iter().any(is_written) {
            let why = "it was named for two outputs; give each a file of its own";
            return Err(cannot_write(name, &why));
        }
        self.written.borrow_mut().push(Written {
            name: name.to_owned(),
            place,
            is_spared: false,
        });
        Ok(())
    }

    /// Checks that the file `image`, which a script boots, or gives to a machine as its initrd, is no
    /// output. One that it is must not be written any more.
    ///
    /// # Errors
    /// A sentence that names both.
    pub fn spare(&self, image: &Path) -> Result<(), String> {
        let mut written = self.written.borrow_mut();
        let Some(output) = written.iter_mut().find(|it| is_at(image, &it.place)) else {
            return Ok(());
        };
        output.is_spared = true;
        Err(format!(
            "{}, which the script boots, would be lost: {} is to be written, and is the same file; \
             give the output another name",
            spell_out_path(image),
            spell_out_path(&output.name)
        ))
    }

    /// Whether the output `name` must not be written any more.
    pub fn is_spared(&self, name: &Path) -> bool {
        let written = self.written.borrow();
        written.iter().any(|it| it.is_spared && it.name == name)
    }

    /// As [`Outputs::check`], before the inputs could all be found: what is at `name` must be a test
    /// result of before, or nothing. It could be an input, under another name.
    pub fn check_result(&self, name: &Path) -> Result<(), Refused> {
        self.check(name)?;
        let is_result = |begins: [u8; 5]| RESULTS.contains(&&begins);
        if beginning(name).is_none_or(|begins| begins.is_ok_and(is_result)) {
            return Ok(());
        }
        Err(cannot_write(
            name,
            &"it is no test result, and would be lost",
        ))
    }

    /// Prepares to write the file `name` later.
    ///
    /// # Errors
    /// [`Refused`] if it is an input or another output, or cannot be created.
    pub fn create(&self, name: &Path) -> Result<WholeFile, Refused> {
        self.check(name)?;
        WholeFile::create(name).map_err(|error| not_made(name, &error))
    }
}

/// Refuses to write the file `name`, which could not be created.
pub fn not_made(name: &Path, error: &io::Error) -> Refused {
    Refused::of(cannot_write(name, error).message, error)
}

/// Refuses to write the file `name`.
pub fn cannot_write(name: &Path, why: &dyn Display) -> Refused {
    Refused {
        message: format!("cannot write {}: {why}", spell_out_path(name)),
        status: 2,
    }
}

/// Whether the file `name` could be a guest image.
pub fn may_be_image(name: &Path) -> bool {
    matches!(beginning(name), Some(Ok(begins)) if begins.starts_with(b"\x7fELF"))
}

/// The first bytes of the regular file `name`; `None` if it is empty, not there, or something else.
#[expect(clippy::disallowed_methods, reason = "only a regular file is opened")]
fn beginning(name: &Path) -> Option<io::Result<[u8; 5]>> {
    // A pipe is not opened: that would wait for whoever writes to it.
    (fs::metadata(name).ok()).filter(|it| it.is_file() && it.len() > 0)?;
    let mut begins = [0; 5];
    let read = File::open(name).and_then(|mut file| file.read_exact(&mut begins));
    Some(read.map(|()| begins))
}

/// Where the regular file `name` is, or will be once it is created; `None` if it is something else,
/// such as a device, or cannot be created.
fn place(name: &Path) -> Option<PathBuf> {
    if let Ok(existing) = name.canonicalize() {
        return existing.is_file().then_some(existing);
    }
    place_of(name)
}

/// Whether the file `name` is that at `place`, if only by a hard link.
fn is_at(name: &Path, place: &Path) -> bool {
    let [one, other] = [name, place].map(|path| fs::metadata(path).ok());
    match (one, other) {
        (Some(one), Some(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn why(refused: Result<(), Refused>) -> String {
        refused.expect_err("it was not to be written").message
    }

    #[test]
    fn a_file_is_written_once_by_whatever_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("there"), "").expect("room for a file");
        symlink(at("there"), at("link")).expect("room for a link");
        let outputs = Outputs::default();
        for name in ["there", "new"] {
            assert!(outputs.check(&at(name)).is_ok());
        }
        for name in ["link", "new", "./there"] {
            let why = why(outputs.check(&at(name)));
            assert!(why.contains("named for two outputs"), "{why}");
        }
        assert!(outputs.check(&at("another")).is_ok());
    }

    #[test]
    fn what_is_read_is_not_written() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let input = folder.path().join("input");
        fs::write(&input, "").expect("room for a file");
        let other = folder.path().join("other");
        fs::hard_link(&input, &other).expect("room for a link");
        let outputs = Outputs::beside([&input]);
        for name in [&input, &other] {
            let why = why(outputs.check(name));
            assert!(why.contains("the run needs what is in it"), "{why}");
        }
    }

    #[test]
    fn an_output_that_a_script_boots_is_spared() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["image", "other"] {
            fs::write(at(name), b"\x7fELF\x02").expect("room for a file");
            assert!(may_be_image(&at(name)));
        }
        symlink(at("image"), at("link")).expect("room for a link");
        let outputs = Outputs::default();
        for name in ["link", "new"] {
            assert!(outputs.check(&at(name)).is_ok());
        }
        assert_eq!(outputs.spare(&at("other")), Ok(()));
        assert_eq!(outputs.spare(&at("nothing")), Ok(()));
        assert!(!outputs.is_spared(&at("link")));
        fs::hard_link(at("image"), at("again")).expect("room for a link");
        let why = outputs.spare(&at("again")).expect_err("it is written");
        for name in ["again", "link"] {
            assert!(why.contains(&spell_out_path(&at(name))), "{why}");
        }
        assert!(outputs.is_spared(&at("link")) && !outputs.is_spared(&at("new")));
    }

    #[test]
    fn only_a_result_is_replaced_by_one_of_a_refusal() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [
            ("junit", "<?xml version"),
            ("ktap", "KTAP version 1"),
            ("empty", ""),
        ] {
            fs::write(at(name), text).expect("room for a file");
        }
        fs::write(at("image"), b"\x7fELF\x02").expect("room for a file");
        let outputs = Outputs::default();
        for name in ["junit", "ktap", "empty", "new"] {
            assert!(outputs.check_result(&at(name)).is_ok(), "{name}");
        }
        let why = why(outputs.check_result(&at("image")));
        assert!(why.contains("would be lost"), "{why}");
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pipe = folder.path().join("pipe");
        let name = CString::new(pipe.as_os_str().as_bytes()).expect("no zeros");
        // SAFETY: `name` is a string that ends with zero, and lives until the call returns.
        let made = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
        assert_eq!(made, 0);
        assert!(Outputs::default().check_result(&pipe).is_ok());
    }

    #[test]
    fn devices_take_any_number_of_outputs() {
        let outputs = Outputs::default();
        for _ in 0..2 {
            assert!(outputs.check(Path::new("/dev/null")).is_ok());
        }
    }
}
