//! Reports and results of benches as `vmm compare` reads them. The input is two files, with a line
//! of its own between them; or one, which is compared with itself.

use vmm::report::comparison::{Comparison, table};

use crate::files::file;

/// What stands between the two files.
const AND: &[u8] = b"\n--and--\n";

/// Reads `data` as two such files.
pub fn read(data: &[u8]) {
    let mut places = data.windows(AND.len());
    let (a, b) = match places.position(|it| it == AND) {
        Some(at) => (&data[..at], &data[at + AND.len()..]),
        None => (data, data),
    };
    let (a, b) = (file("a.json", a), file("b.json", b));
    for machine in [None, Some(1)] {
        if let Ok(comparison) = Comparison::of_files(&a, &b, machine) {
            serde_json::to_string(&comparison).expect("JSON of strings and numbers");
            let _ = table(&comparison);
        }
    }
}
