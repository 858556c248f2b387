//! `docs/designs.md` holds what the census of the designs prints, and the census counts cache lines
//! as it should.

#[path = "../examples/designs/coherence.rs"]
mod coherence;

use std::path::Path;
use std::process::Command;

use coherence::{Coherence, LINE};

const BEGIN: &str = "<!-- designs: begin -->";
const END: &str = "<!-- designs: end -->";

/// The census runs as in `make designs`, in a build of its own: the library that is tested here has
/// atomics without a witness.
#[test]
fn the_page_has_the_table_that_the_census_prints() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("a directory for tests is inside the one for all");
    let census = Command::new(env!("CARGO"))
        .args(["run", "--locked", "--quiet", "--features", "census"])
        .args(["--example", "designs", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&census.stderr);
    assert!(census.status.success(), "{errors}");
    let printed = String::from_utf8(census.stdout).expect("a table is text");

    let page = std::fs::read_to_string(package.join("../docs/designs.md")).expect("the page");
    let (_, from_begin) = page.split_once(BEGIN).expect("where the table begins");
    let (table, _) = from_begin.split_once(END).expect("where the table ends");
    assert_eq!(
        table.trim(),
        printed.trim(),
        "put what `make designs` prints between the markers of docs/designs.md"
    );
}

#[test]
fn a_line_moves_when_another_has_modified_or_holds_it() {
    let mut lines = Coherence::default();
    let mut touch = |cpu, address, writes| lines.touch(cpu, address, writes);
    let (load, store) = (false, true);
    // No CPU has written the line: it comes from memory.
    assert!(!touch(0, 0, load));
    assert!(!touch(1, 8, load));
    // CPU 1 has a copy.
    assert!(touch(0, 0, store));
    assert!(!touch(0, 0, store));
    assert!(!touch(0, 0, load));
    // Modified elsewhere, then shared by all who have read it since.
    assert!(touch(1, LINE - 1, load));
    assert!(!touch(1, 0, load));
    assert!(touch(2, 0, load));
    assert!(!touch(0, 0, load));
    // The right to write is a transfer of its own.
    assert!(touch(2, 0, store));
    assert!(touch(1, 0, store));
    // Another line.
    assert!(!touch(2, LINE, store));
    assert!(!touch(2, LINE, load));
}
