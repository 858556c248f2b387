//! Copies of the sources that guest images are built from, so that a test can build what it likes,
//! where it likes, and those of the product stay as they are.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

/// What a guest is built from: the workspace.
const PARTS: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "shared",
    "guest",
    "vmm",
    "tests",
];

/// Makes `copy` the same as the sources, and leaves alone what is: what was built from it need not
/// be again.
///
/// # Panics
/// If that is not possible.
pub fn copy_to(copy: &Path) {
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::create_dir_all(copy).expect("a directory for sources");
    for part in PARTS {
        bring_up_to_date(&original.join(part), &copy.join(part))
            .unwrap_or_else(|error| panic!("cannot copy {part} to {}: {error}", copy.display()));
    }
}

fn bring_up_to_date(original: &Path, copy: &Path) -> io::Result<()> {
    if !original.is_dir() {
        let is_same = copy.is_file() && fs::read(copy)? == fs::read(original)?;
        return if is_same {
            Ok(())
        } else {
            fs::copy(original, copy).map(drop)
        };
    }
    fs::create_dir_all(copy)?;
    for name in names(copy)? {
        // A module that is a file and a directory is none.
        let (left, is_there) = (copy.join(&name), original.join(&name).exists());
        match left.is_dir() {
            _ if is_there => {}
            true => fs::remove_dir_all(left)?,
            false => fs::remove_file(left)?,
        }
    }
    for name in names(original)? {
        bring_up_to_date(&original.join(&name), &copy.join(&name))?;
    }
    Ok(())
}

fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let entries = fs::read_dir(directory)?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}
