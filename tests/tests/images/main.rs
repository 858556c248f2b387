//! Guest images are the same bytes wherever they are built: a schedule is valid only for the image
//! on which it was found, and must be replayable with an image that another machine has built from
//! the same sources.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use object::{Object, ObjectSection};
use tempfile::TempDir;
use tests::{Vmm, explore_image, guest, sources};

/// A build from nothing takes a minute on a busy host.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// Another home directory for cargo, with the contents of this user's.
fn other_home(place: &Path) -> PathBuf {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let home = home.expect("CARGO_HOME or HOME, as cargo needs");
    let other = place.join("home of cargo");
    fs::create_dir(&other).expect("a directory of our own");
    for entry in fs::read_dir(home).expect("cargo has run before") {
        let entry = entry.expect("an entry of it");
        symlink(entry.path(), other.join(entry.file_name())).expect("a link");
    }
    other
}

/// Where two files first differ, with the section, to help to find out why.
fn difference(one: &[u8], other: &[u8]) -> String {
    let sections = |bytes| {
        let file = object::File::parse(bytes).expect("an ELF file");
        file.sections()
            .map(|it: object::Section<'_, '_>| {
                let name = it.name().unwrap_or_default().to_owned();
                (name, it.data().unwrap_or_default().to_vec())
            })
            .collect::<Vec<_>>()
    };
    let different = sections(one)
        .into_iter()
        .zip(sections(other))
        .filter(|(one, other)| one != other)
        .map(|((name, one), (_, other))| {
            let at = one.iter().zip(&other).position(|(one, other)| one != other);
            let at = at.unwrap_or_else(|| one.len().min(other.len()));
            let around = |bytes: &[u8]| {
                let (start, end) = (at.saturating_sub(40), (at + 40).min(bytes.len()));
                String::from_utf8_lossy(&bytes[start..end]).into_owned()
            };
            format!(
                "{name} at {at:#x}: {:?}, {:?}",
                around(&one),
                around(&other)
            )
        });
    different.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_image_is_the_same_wherever_it_is_built() {
    // Paths of other lengths, and with a space, wherever the build sees a path.
    let beside = explore_image();
    let beside = beside.parent().expect("it lies in a directory");
    let place = TempDir::with_prefix_in("built elsewhere ", beside).expect("a directory");
    let place = place.path();
    let sources = place.join("a copy of the sources");
    sources::copy_to(&sources);
    let home = other_home(place);
    let build = |kind: &[&str], product: PathBuf| {
        let image = place.join(product.file_name().expect("a name"));
        let mut command = Command::new(sources.join("guest/build"));
        command
            .args(kind)
            .arg(&image)
            .env("CARGO_TARGET_DIR", place.join("what is built"))
            .env("CARGO_HOME", &home);
        let run = Vmm::from(command).limit(TIME_LIMIT).run();
        run.ends_with(0);
        assert_eq!(run.stderr, "", "a build has nothing to warn of");
        let read = |path: &Path| fs::read(path).expect("an image");
        let (built, product_bytes) = (read(&image), read(&product));
        assert!(
            built == product_bytes,
            "{} is not what the same sources make elsewhere; if `make build` has just made it, \
             guest/build lets through where it runs:\n{}",
            product.display(),
            difference(&product_bytes, &built)
        );
        let names_a_place = [place, &home, Path::new(env!("CARGO_MANIFEST_DIR"))]
            .map(|path| path.as_os_str().as_encoded_bytes().to_owned())
            .iter()
            .any(|path| built.windows(path.len()).any(|it| it == path));
        assert!(
            !names_a_place,
            "{} names where it was built",
            image.display()
        );
    };
    std::thread::scope(|scope| {
        let whole = scope.spawn(|| build(&[], guest()));
        build(&["explore"], explore_image());
        whole.join().expect("the other image is the same as well");
    });
}
