//! Guest images with a bug in them, built from a copy of the sources, so that those of the product
//! stay as they are. Each copy is brought up to date before a bug is planted in it, however the
//! last build ended. The guest's dependencies are built once per copy and kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use tests::{Vmm, explore_image, sources};

/// The first build in a copy takes a minute on a busy host.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// The copies in which images are built at the same time, each locked while it is in use. More than
/// two would only wait for processors on the hosts that run this.
static COPIES: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];

/// A change to the sources.
#[derive(Debug)]
pub struct Change {
    /// The file.
    pub file: &'static str,
    /// The text in it, which must occur once.
    pub sound: &'static str,
    /// The text that replaces it.
    pub broken: &'static str,
}

/// The directory in which everything is kept, beside the image under test.
pub fn directory() -> PathBuf {
    let directory = explore_image().with_file_name("plants");
    fs::create_dir_all(&directory).expect("a directory for images");
    directory
}

/// An image that several tests use; the first of them builds it.
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
    let image = directory().join(format!("{name}.bin"));
    let (number, _in_use) = free_copy();
    let copy = directory().join(format!("copy{number}"));
    let sources_at = copy.join("src");
    sources::copy_to(&sources_at);
    apply(change, &sources_at);
    let mut command = Command::new(sources_at.join("guest/build"));
    command
        .arg("explore")
        .arg(&image)
        .env("CARGO_TARGET_DIR", copy.join("target"))
        // A third of the build is for it, and nobody reads names of words here.
        .env("CARGO_PROFILE_GUEST_DEBUG", "0");
    Vmm::from(command).limit(TIME_LIMIT).run().ends_with(0);
    image
}

/// A copy that is not in use; if there is none, waits for the first. What a failed build has left
/// there, the next build corrects.
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
        "the bug no longer applies: {file} has to contain this once:\n{sound}"
    );
    fs::write(&path, text.replace(sound, broken)).expect("room for a source file");
}
