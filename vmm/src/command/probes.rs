//! `vmm probes GUEST`: the points of a guest image at which a CPU can be held.

use std::path::PathBuf;

use clap::Args;
use vmm::confinement;
use vmm::control_characters::spell_out_path;
use vmm::machine::image::Image;
use vmm::machine::points::Points;

use super::printing::{listed, print};
use super::{Refused, chain, installed};

/// Which image to look into.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Guest image [default: the installed guest.bin]
    guest: Option<PathBuf>,
}

impl Arguments {
    /// The files that its work needs.
    pub fn files(&self) -> confinement::Files {
        confinement::Files::new(&self.guest, [])
    }
}

/// Lists the probes by name, each with its places in the source.
///
/// # Errors
/// [`Refused`] if the image cannot be read, or has none.
pub fn run(arguments: &Arguments) -> Result<u8, Refused> {
    let refused = |message| Refused { message, status: 2 };
    let guest = installed::image(arguments.guest.as_deref(), installed::GUEST)?;
    let image = Image::open(&guest).map_err(|error| Refused::of(chain(&error), &error))?;
    let points = Points::read(image.bytes()).map_err(|error| refused(error.to_string()))?;
    let mut places: Vec<_> = points
        .iter()
        .map(|point| (&*point.name, &*point.file, point.line))
        .collect();
    places.sort_unstable();
    let Some(width) = places.iter().map(|(name, ..)| name.len()).max() else {
        let name = spell_out_path(&guest);
        let hint = match image.is_linux() {
            true => "; CPUs of a Linux kernel are held at its functions, see docs/linux.md",
            false => "",
        };
        return Err(refused(format!("{name} has no probes{hint}")));
    };
    let mut text = String::new();
    let mut last = "";
    for (name, file, line) in places {
        let shown = if name == last { "" } else { name };
        text += &format!("{shown:width$}  {file}:{line}\n");
        last = name;
    }
    listed("the points", print(&text))
}
