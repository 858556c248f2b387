//! Tells the compiler of which commit the sources are, if they are of one: `VMM_COMMIT`,
//! `VMM_MODIFIED` and the line of `--version`. Sources without git have none, unless who builds
//! them says so in `VMM_COMMIT`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `vmm` is made of, seen from the root of the workspace. Whatever changes here has it
/// compiled anyway.
const SOURCES: [&str; 7] = [
    "vmm/src",
    "vmm/build.rs",
    "vmm/Cargo.toml",
    "shared/src",
    "shared/Cargo.toml",
    "Cargo.toml",
    "Cargo.lock",
];

/// A commit, and whether the sources are others by now.
#[derive(Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its number.
    pub id: String,
    /// Whether anything that the command is made of has changed since.
    pub is_modified: bool,
}

/// What git says at `root`, in one line; nothing where there is no git, or it knows nothing of
/// this.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    let output = git.arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The commit that is checked out at `root`, if that is the root of a repository, and not somewhere
/// in one that has nothing to do with it.
pub fn commit(root: &Path) -> Option<Commit> {
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(SOURCES);
    Some(Commit {
        id: git(root, &["rev-parse", "HEAD"])?,
        is_modified: !git(root, &status)?.is_empty(),
    })
}

/// The files that change when another commit is checked out at `root`. None that is not there:
/// cargo would take it for changed each time.
pub fn changing(root: &Path) -> Vec<PathBuf> {
    let branch = git(root, &["symbolic-ref", "--quiet", "HEAD"]);
    let names = ["HEAD", "logs/HEAD", "packed-refs"].map(str::to_owned);
    let names = names.into_iter().chain(branch);
    let paths = names.filter_map(|name| git(root, &["rev-parse", "--git-path", &name]));
    let paths = paths.map(|path| root.join(path));
    paths.filter(|path| path.is_file()).collect()
}

// A test has this file for a module.
#[cfg_attr(test, allow(dead_code, reason = "cargo calls it, and no test"))]
fn main() {
    let version = env!("CARGO_PKG_VERSION");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    println!("cargo::rerun-if-env-changed=VMM_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let commit = match env::var("VMM_COMMIT") {
        Ok(id) if !id.is_empty() => Some(Commit {
            id,
            is_modified: false,
        }),
        _ => commit(&root),
    };
    let line = match &commit {
        None => format!("{version} (commit unknown)"),
        Some(Commit { id, is_modified }) => {
            println!("cargo::rustc-env=VMM_COMMIT={id}");
            let modified = if *is_modified { ", modified" } else { "" };
            println!("cargo::rustc-env=VMM_MODIFIED={is_modified}");
            // Nothing else can make the answer another.
            let files = changing(&root).into_iter();
            for path in files.chain(SOURCES.map(|source| root.join(source))) {
                println!("cargo::rerun-if-changed={}", path.to_string_lossy());
            }
            format!("{version} ({id}{modified})")
        }
    };
    println!("cargo::rustc-env=VMM_VERSION={line}");
}
