//! The file in which a search is kept. It ends with a hash, which the input leaves out: behind the
//! hash nothing but damage would be tried.

use vmm::explore::checkpoint_file;
use xxhash_rust::xxh3::xxh3_128;

use crate::files::file;

/// Reads `data` as such a file.
pub fn read(data: &[u8]) {
    let hash = xxh3_128(data).to_le_bytes();
    let path = file("checkpoint", &[data, &hash].concat());
    let _ = checkpoint_file::check(&path);
    let _ = checkpoint_file::kept_case(&path);
    // And as it is: a file that was cut off.
    let _ = checkpoint_file::kept_case(&file("cut-off", data));
}
