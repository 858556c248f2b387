//! Guest images with a bug in them, built from a copy of the sources, so that those of the product
//! stay as they are. Each copy is brought up to date before something is planted in it, whatever
//! became of the last build; what the guest stands on is built once per copy and kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use tests::{Vmm, explore_image, sources};

/// The first build in a copy takes a minute on a busy host.
const PATIENCE: Duration = Duration::from_secs(600);

/// Copies in which images are built at the same time: more than two would wait for processors on
/// the hosts that run this. By number, locked while one is in use.
static COPIES: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];

/// A change to the sources.
#[derive(Debug)]
pub struct Change {
    /// In which file.
    pub file: &'static str,
    /// What stands there, once.
    pub sound: &'static str,
    /// What is to stand there instead.
    pub broken: &'static str,
}

/// Where everything is kept: beside the image under test.
pub fn bench() -> PathBuf {
    let bench = explore_image().with_file_name("plants");
    fs::create_dir_all(&bench).expect("a directory for images");
    bench
}

/// An image that several tests use, and the first of them builds.
type Shared = Arc<OnceLock<PathBuf>>;

/// Builds the explorer's image with `change` in it, if no test has yet, and returns where it is.
pub fn build(name: &str, change: &Change) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, Shared>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let image = Arc::clone(built.entry(name.to_owned()).or_default());
    drop(built);
    image.get_or_init(|| build_anew(name, change)).clone()
}

fn build_anew(name: &str, change: &Change) -> PathBuf {
    let image = bench().join(format!("{name}.bin"));
    let (number, _in_use) = free_copy();
    let copy = bench().join(format!("copy{number}"));
    let sources_at = copy.join("src");
    sources::copy_to(&sources_at);
    apply(change, &sources_at);
    let mut command = Command::new(sources_at.join("guest/build"));
    command
        .arg("explore")
        .arg(&image)
        .env("CARGO_TARGET_DIR", copy.join("target"));
    Vmm::from(command).limit(PATIENCE).run().ends_with(0);
    image
}

/// A copy that nobody uses, or else the first. What a build that failed has left there, the next
/// one puts right.
fn free_copy() -> (usize, MutexGuard<'static, ()>) {
    let free = COPIES.iter().map(Mutex::try_lock).enumerate();
    free.filter_map(|(number, copy)| match copy {
        Ok(in_use) => Some((number, in_use)),
        Err(TryLockError::Poisoned(failed)) => Some((number, failed.into_inner())),
        Err(TryLockError::WouldBlock) => None,
    })
    .next()
    .unwrap_or_else(|| (0, COPIES[0].lock().unwrap_or_else(PoisonError::into_inner)))
}

fn apply(change: &Change, sources: &Path) {
    let Change {
        file,
        sound,
        broken,
    } = change;
    let path = sources.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let times = text.matches(sound).count();
    assert_eq!(
        times, 1,
        "the plant has rotted: {file} has to contain this once:\n{sound}"
    );
    fs::write(&path, text.replace(sound, broken)).expect("room for a source file");
}
