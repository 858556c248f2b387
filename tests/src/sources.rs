//! Copies of the sources of guest images, so that a test can change and build them anywhere, and
//! those of the product stay as they are.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

/// What a guest is built from: the parts of the workspace.
const PARTS: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "shared",
    "guest",
    "vmm",
    "tests",
    "fuzz",
];

/// Makes `copy` the same as the sources. Files that are the same already are not touched, so that
/// what was built from them need not be built again.
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
        // Deletes what is no longer there: a module that is both a file and a directory does not
        // compile.
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
