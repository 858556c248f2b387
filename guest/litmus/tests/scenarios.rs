//! The tests that are shipped, `scenarios/litmus`: they can be read, and their claims agree with
//! the models of memory. What x86 allows may exist, and what it does not allow must not.

use std::fs;
use std::path::Path;

use litmus::interleavings::{Model, decides};
use litmus::test::{Quantifier, Test};
use litmus::{case, herd};

fn shipped() -> Vec<(String, Test)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios/litmus");
    let entries = fs::read_dir(folder)
        .expect("the scenarios")
        .map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|end| end == "litmus"));
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let test = herd::parse(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        (name, test)
    };
    files.map(read).collect()
}

#[test]
fn each_is_called_as_its_file() {
    let shipped = shipped();
    assert!(shipped.len() > 12, "{}", shipped.len());
    for (name, test) in shipped {
        assert_eq!(test.name, name);
    }
}

#[test]
fn each_claims_what_x86_does() {
    for (name, test) in shipped() {
        let is_allowed = decides(&test, Model::Tso).expect("small");
        let may_be = test.claim.quantifier == Quantifier::Exists;
        assert_eq!(is_allowed, may_be, "{name}: {}", test.claim);
    }
}

/// What these tests are for: what may exist among them does only where stores wait in buffers.
#[test]
fn none_exists_where_memory_is_sequentially_consistent() {
    for (name, test) in shipped() {
        assert_eq!(decides(&test, Model::Sequential), Some(false), "{name}");
        let expected = match test.claim.quantifier {
            Quantifier::Exists => "\nexpect forbidden\n",
            Quantifier::Never | Quantifier::ForAll => "\nexpect clean\n",
        };
        assert!(case::case(&test).unwrap().ends_with(expected), "{name}");
    }
}
