//! Finds the guest images, cases and scripts that are named without a folder, or not at all: in the
//! current folder, in those of [`GUEST_PATH`], and where `make install` puts them beside the
//! command. Looks only at which files there are, and reads none.

use std::env;
use std::fs;
use std::path::{Component, Path, PathBuf};

use vmm::closest::did_you_mean;
use vmm::control_characters::spell_out_path;

use super::Refused;

/// The variable with more folders of guest images, separated by colons.
pub const GUEST_PATH: &str = "VMM_GUEST_PATH";

/// The image that runs, and is measured and described, if none is named.
pub const GUEST: &str = "guest.bin";

/// The image that is explored if none is named.
pub const EXPLORE: &str = "explore.bin";

/// Where `make install` puts images, and cases and scripts, from the folder above the command's.
const IMAGES: &str = "lib/ipi-lab";
const SCENARIOS: &str = "share/ipi-lab";

/// A folder in which files are looked for, and how a message calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    called: String,
}

/// The folders in which files are looked for, and what links in them lead to.
pub fn folders() -> Vec<PathBuf> {
    let places = image_places().into_iter().chain(scenario_places());
    places
        .flat_map(|place| {
            let links = link_targets(&place.folder);
            links.into_iter().chain([place.folder])
        })
        .collect()
}

/// What links in this folder lead to.
fn link_targets(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_symlink()));
    (links.filter_map(|entry| entry.path().canonicalize().ok())).collect()
}

/// The folders of images.
fn image_places() -> Vec<Place> {
    let path = env::var_os(GUEST_PATH).unwrap_or_default();
    let path = env::split_paths(&path).filter(|it| !it.as_os_str().is_empty());
    let named = path.map(|folder| Place {
        called: format!("in {} ({GUEST_PATH})", spell_out_path(&folder)),
        folder,
    });
    named.chain(installed(IMAGES)).collect()
}

/// The guest image `named` on the command line; if none is, the installed `default`.
///
/// # Errors
/// [`Refused`] if there is none, with the places where it was looked for.
pub fn image(named: Option<&Path>, default: &str) -> Result<PathBuf, Refused> {
    let places = image_places();
    match named {
        Some(name) => locate(name, &places).map_err(|why| bad(format!("guest image: {why}"))),
        None => find(Path::new(default), &places).ok_or_else(|| {
            bad(format!(
                "no guest image was named (GUEST), and {}",
                nowhere(default, &places, "")
            ))
        }),
    }
}

/// The installed image `default`, if there is one.
pub fn image_if_any(default: &str) -> Option<PathBuf> {
    image(None, default).ok()
}

/// The case or the script `name`.
///
/// # Errors
/// [`Refused`] if a name without a folder is in none of the places.
pub fn scenario(name: &Path) -> Result<PathBuf, Refused> {
    locate(name, &scenario_places()).map_err(bad)
}

/// Whether a file of that name is where it is named, or an image in one of the places.
pub fn is_there(name: &Path) -> bool {
    image(Some(name), GUEST).is_ok_and(|path| path.exists())
}

fn bad(message: String) -> Refused {
    Refused { message, status: 2 }
}

/// The folder of what is installed, if this command is installed with anything.
fn installed(what: &str) -> Option<Place> {
    let command = env::current_exe().ok()?;
    let folder = command.parent()?.parent()?.join(what);
    Some(Place {
        called: format!(
            "in {}, where it would be installed",
            spell_out_path(&folder)
        ),
        folder,
    })
}

/// The folder of the installed cases and scripts, and those in it.
fn scenario_places() -> Vec<Place> {
    let Some(top) = installed(SCENARIOS) else {
        return Vec::new();
    };
    let below = fs::read_dir(&top.folder).into_iter().flatten().flatten();
    let mut below: Vec<_> = below
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    // The system lists them in any order.
    below.sort();
    let below = below.into_iter().map(|folder| Place {
        called: String::new(),
        folder,
    });
    [top].into_iter().chain(below).collect()
}

/// The path of `name`, which is looked for in `places` if it is a name without a folder, and not in
/// the current one. The error says where it is not.
fn locate(name: &Path, places: &[Place]) -> Result<PathBuf, String> {
    // Unlike those of `a/` and `./a`, the one component of `a` is all of it.
    let is_bare = match name.components().next() {
        Some(Component::Normal(first)) => first == name.as_os_str(),
        _ => false,
    };
    if !is_bare || name.exists() {
        return Ok(name.to_owned());
    }
    find(name, places)
        .ok_or_else(|| nowhere(&spell_out_path(name), places, "in the current folder, "))
}

fn find(name: &Path, places: &[Place]) -> Option<PathBuf> {
    let mut candidates = places.iter().map(|place| place.folder.join(name));
    candidates.find(|path| path.is_file())
}

/// That `name` is nowhere, and what was perhaps meant.
fn nowhere(name: &str, places: &[Place], first: &str) -> String {
    let called: Vec<_> = places.iter().map(|place| &*place.called).collect();
    let called: Vec<_> = called.into_iter().filter(|it| !it.is_empty()).collect();
    let folders = places.iter().map(|place| place.folder.as_path());
    let here = (!first.is_empty()).then(|| Path::new("."));
    let files: Vec<_> = folders.chain(here).flat_map(files).collect();
    format!(
        "there is no {name} {first}{}{}",
        called.join(", or "),
        did_you_mean(name, files.iter().map(String::as_str))
    )
}

/// The names of the files in `folder`.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn place(folder: &TempDir, files: &[&str]) -> Place {
        for file in files {
            fs::write(folder.path().join(file), "").unwrap();
        }
        Place {
            folder: folder.path().to_owned(),
            called: format!("in {}", folder.path().display()),
        }
    }

    #[test]
    fn the_first_place_that_has_it_counts() {
        let [one, other] = [(); 2].map(|()| TempDir::new().unwrap());
        let places = [
            place(&one, &["b.image"]),
            place(&other, &["a.image", "b.image"]),
        ];
        let located = |name: &str| locate(name.as_ref(), &places);
        assert_eq!(located("b.image"), Ok(one.path().join("b.image")));
        assert_eq!(located("a.image"), Ok(other.path().join("a.image")));
    }

    /// Whoever names a folder means that file and no other.
    #[test]
    fn a_path_is_taken_as_it_is() {
        let folder = TempDir::new().unwrap();
        let places = [place(&folder, &["a.image"])];
        for path in [
            "./a.image",
            "/a.image",
            "x/a.image",
            "../a.image",
            "",
            "..",
            "a.image/",
        ] {
            assert_eq!(locate(path.as_ref(), &places), Ok(path.into()), "{path}");
        }
    }

    #[test]
    fn what_is_nowhere_is_refused_with_the_places_and_a_guess() {
        let folder = TempDir::new().unwrap();
        let places = [place(&folder, &["lost-call.case"])];
        let why = locate("lostcall.case".as_ref(), &places).unwrap_err();
        let folder = folder.path().display();
        assert_eq!(
            why,
            format!(
                "there is no lostcall.case in the current folder, in {folder}; did you mean \
                 \"lost-call.case\"?"
            )
        );
        let why = locate("zzz".as_ref(), &places).unwrap_err();
        assert!(!why.contains("mean"), "{why}");
    }
}
