//! `docs/probes.md` names the probes that the code has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Adds the names of the probes in the files under `directory` to `names`.
fn collect(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, names);
        } else if !path.ends_with("src/probe.rs") {
            let source = fs::read_to_string(&path).expect("a source file");
            for arguments in source.split("probe!(").skip(1) {
                let name = arguments.split('"').nth(1);
                names.insert(name.expect("a probe has a name").to_owned());
            }
        }
    }
}

#[test]
fn the_page_explains_every_probe() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    for sources in ["src", "kit/src"] {
        collect(&package.join(sources), &mut names);
    }
    let page = fs::read_to_string(package.join("../docs/probes.md")).expect("the page");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let explained: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
    let set: BTreeSet<_> = explained.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(set.len(), explained.len(), "each is explained once");
    assert_eq!(
        set, names,
        "in docs/probes.md (left) and in the code (right)"
    );
}
