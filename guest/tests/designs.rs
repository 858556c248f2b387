//! `docs/designs.md` holds what the census of the designs prints, and the census counts cache lines
//! as it should.

#[path = "../examples/designs/coherence.rs"]
mod coherence;

use std::path::Path;
use std::process::Command;

use coherence::{Coherence, LINE};

const BEGIN: &str = "<!-- designs: begin -->";
const END: &str = "<!-- designs: end -->";

/// The versions of Linux whose file is counted, where `make linux-images` has fetched the tree.
const LINUX: [&str; 2] = ["6.1", "6.12"];

/// Makes the library of this version that the census counts, if its tree is in `target`, and a
/// compiler here.
fn has_linux(version: &str, package: &Path, target: &Path) -> bool {
    if !target.join("linux").join(version).is_dir() {
        return false;
    }
    let mut build = Command::new(package.join("linux/build"));
    let name = format!("linux-{version}");
    build.args(["-o", &name, "--census", version]);
    let built = build.env("CARGO_TARGET_DIR", target).output();
    let built = built.expect("a shell");
    let said = String::from_utf8_lossy(&built.stderr);
    // 3: there is no compiler.
    assert!(matches!(built.status.code(), Some(0 | 3)), "{said}");
    built.status.success()
}

/// The census runs as in `make designs`, in a build of its own: the library that is tested here has
/// atomics without a witness. Of Linux it counts what is there.
#[test]
fn the_page_has_the_table_that_the_census_prints() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("a directory for tests is inside the one for all");
    let missing: Vec<_> = LINUX
        .into_iter()
        .filter(|version| !has_linux(version, package, target))
        .collect();
    let census = Command::new(env!("CARGO"))
        .args(["run", "--locked", "--quiet", "--features", "census"])
        .args(["--example", "designs", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .env("LINUX_CENSUS", target)
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&census.stderr);
    assert!(census.status.success(), "{errors}");
    let printed = String::from_utf8(census.stdout).expect("a table is text");

    let page = std::fs::read_to_string(package.join("../docs/designs.md")).expect("the page");
    let (_, from_begin) = page.split_once(BEGIN).expect("where the table begins");
    let (table, _) = from_begin.split_once(END).expect("where the table ends");
    let is_counted = |line: &&str| {
        let of = |version: &str| line.starts_with(&format!("| `linux-{version}`"));
        !missing.iter().any(|version| of(version))
    };
    let counted: Vec<_> = table.trim().lines().filter(is_counted).collect();
    assert_eq!(
        counted.join("\n"),
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
