//! `vmm describe GUEST`: what a guest image says of itself.

use std::path::PathBuf;

use clap::Args;
use vmm::confinement;
use vmm::control_characters::spell_out_path;
use vmm::machine::image::Image;
use vmm::manifest::{Document, Manifest, SCHEMA};
use vmm::provenance::Input;

use super::printing::{listed, print, print_json};
use super::{Refused, chain, installed};

/// Which image to look into.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Guest image [default: the installed guest.bin]
    guest: Option<PathBuf>,

    /// As JSON; see docs/formats.md
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The files that its work needs.
    pub fn files(&self) -> confinement::Files {
        confinement::Files::new(&self.guest, [])
    }
}

/// Prints the manifest, and returns the exit status.
///
/// # Errors
/// [`Refused`] if the image cannot be read, or says nothing, or what it says makes no sense.
pub fn run(arguments: &Arguments) -> Result<u8, Refused> {
    let refused = |message| Refused { message, status: 2 };
    let guest = installed::image(arguments.guest.as_deref(), installed::GUEST)?;
    let name = spell_out_path(&guest);
    let image = Image::open(&guest).map_err(|error| Refused::of(chain(&error), &error))?;
    let manifest = Manifest::of(&image)
        .map_err(|error| refused(error.to_string()))?
        .ok_or_else(|| {
            let section = shared::manifest::SECTION;
            refused(format!(
                "{name} says nothing of itself: it has no section {section}"
            ))
        })?;
    let printed = match arguments.json {
        false => print(&manifest.table()),
        true => {
            let document = Document {
                schema: SCHEMA,
                image: Input::new(&guest, image.file()),
                manifest: &manifest,
            };
            // Text and numbers always have a JSON form.
            print_json(&(serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"))
        }
    };
    listed(&format!("what {name} says"), printed)
}
