//! The build script finds out from which commit the sources are, and works without git.

#![expect(clippy::disallowed_methods, reason = "a test makes files")]

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

#[path = "../build.rs"]
mod build;

use build::{changing, commit};

/// Runs git with a made-up identity; `false` if it fails, or there is no git.
fn git(root: &Path, arguments: &str) -> bool {
    let identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost"];
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(identity);
    let status = git.args(arguments.split_whitespace()).output();
    status.is_ok_and(|output| output.status.success())
}

#[test]
fn sources_without_git_have_no_commit() {
    let place = TempDir::new().unwrap();
    assert_eq!(commit(place.path()), None);
    assert!(changing(place.path()).is_empty());
}

#[test]
fn a_commit_is_that_of_these_sources_and_says_when_they_are_others() {
    let place = TempDir::new().unwrap();
    let root = place.path();
    if !git(root, "init --quiet") {
        tests::skip("the commit of vmm: there is no git");
        return;
    }
    assert_eq!(commit(root), None, "nothing is committed yet");
    fs::create_dir_all(root.join("vmm/src")).unwrap();
    fs::write(root.join("vmm/src/main.rs"), "1").unwrap();
    assert!(git(root, "add .") && git(root, "commit --quiet -m one"));
    let one = commit(root).unwrap();
    assert_eq!((one.id.len(), one.is_modified), (40, false));
    let files = changing(root);
    assert!(files.iter().any(|file| file.ends_with("HEAD")), "{files:?}");
    // A file that does not become part of the command does not count.
    fs::write(root.join("notes"), "").unwrap();
    assert!(!commit(root).unwrap().is_modified);
    fs::write(root.join("vmm/src/more.rs"), "").unwrap();
    assert!(commit(root).unwrap().is_modified);
    // Sources that are a directory of another repository are not from that one's commit.
    assert_eq!(commit(&root.join("vmm")), None);
    assert!(git(root, "add .") && git(root, "commit --quiet -m two"));
    assert_ne!(commit(root).unwrap().id, one.id);
}
