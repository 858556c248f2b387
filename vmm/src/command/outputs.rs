//! The files that a subcommand writes: each is to have a name of its own, and none the name of a
//! file that is read.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use vmm::whole_file::WholeFile;

use super::Refused;

/// The output files of a subcommand.
#[derive(Debug, Default)]
pub struct Outputs {
    inputs: Vec<PathBuf>,
    /// The regular files that are written, by their names without links and detours.
    written: RefCell<Vec<PathBuf>>,
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
        if self.written.borrow().contains(&place) {
            let why = "it was named for two outputs; give each a file of its own";
            return Err(cannot_write(name, &why));
        }
        self.written.borrow_mut().push(place);
        Ok(())
    }

    /// Prepares to write the file `name` later.
    ///
    /// # Errors
    /// [`Refused`] if it is an input or another output, or cannot be created.
    pub fn create(&self, name: &Path) -> Result<WholeFile, Refused> {
        self.check(name)?;
        WholeFile::create(name).map_err(|error| cannot_write(name, &error))
    }
}

/// Refuses to write the file `name`.
pub fn cannot_write(name: &Path, why: &dyn Display) -> Refused {
    Refused {
        message: format!("cannot write {}: {why}", name.display()),
        status: 2,
    }
}

/// Where the regular file `name` is, or will be once it is created; `None` if it is something else,
/// such as a device, or cannot be created.
fn place(name: &Path) -> Option<PathBuf> {
    if let Ok(existing) = name.canonicalize() {
        return existing.is_file().then_some(existing);
    }
    let folder = match name.parent()? {
        here if here.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    Some(folder.canonicalize().ok()?.join(name.file_name()?))
}

fn is_at(name: &Path, place: &Path) -> bool {
    name.canonicalize().is_ok_and(|it| it == place)
}

#[cfg(test)]
mod tests {
    use std::fs;
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
        let outputs = Outputs::beside([&input]);
        let why = why(outputs.check(&input));
        assert!(why.contains("the run needs what is in it"), "{why}");
    }

    #[test]
    fn devices_take_any_number_of_outputs() {
        let outputs = Outputs::default();
        for _ in 0..2 {
            assert!(outputs.check(Path::new("/dev/null")).is_ok());
        }
    }
}
