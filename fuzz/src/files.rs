//! Files for what the library reads only from files. Each thread has a folder of its own, in memory
//! if the host has one there.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Where files in memory are, on Linux.
const IN_MEMORY: &str = "/dev/shm";

thread_local! {
    static FOLDER: TempDir = tempfile::tempdir_in(IN_MEMORY)
        .or_else(|_| tempfile::tempdir())
        .expect("a host with room for a folder");
}

/// The file `name` with these bytes, which stays until this thread writes it again.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.with(|folder| folder.path().join(name));
    fs::write(&path, bytes).expect("a host with room for a small file");
    path
}

/// What stands in a file that the library has written.
pub fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("it was written")
}
