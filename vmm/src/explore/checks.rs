//! Checks of what an exploration or a replay was given: the guest's manifest, the case, and the
//! options for the guest. They run no machine.

use super::case::Case;
use super::condition::{Part, Says};
use super::config::Config;
use super::errors::ExploreError;
use super::memory::Memory;
use super::options::{self, NoEffect};
use super::specimen::SpecimenError;
use super::strategy::Strategy;
use crate::machine::MachineError;
use crate::machine::image::Image;
use crate::manifest::Manifest;

/// The manifest of `image`; an empty one if the image has none.
///
/// # Errors
/// [`MachineError`] if the image has a manifest that cannot be read.
pub(super) fn manifest(image: &Image) -> Result<Manifest, MachineError> {
    Ok(Manifest::of(image)?.unwrap_or_default())
}

/// Checks everything about `config` that can be checked without a machine: the image, and that the
/// guest understands the case and the options.
///
/// # Errors
/// [`ExploreError`] for the first thing that is wrong.
pub fn check(config: &Config) -> Result<(), ExploreError> {
    read(config).map(|_| ())
}

/// The image of `config` and its manifest, checked as by [`check`].
///
/// # Errors
/// As [`check`].
pub(super) fn read(config: &Config) -> Result<(Image, Manifest), ExploreError> {
    let image = config.guest.open()?;
    let manifest = manifest(&image).map_err(SpecimenError::from)?;
    check_options(&manifest, &config.case, &config.append)?;
    let file = config.case_file.as_ref().map(|file| &*file.name);
    check_case(file.unwrap_or("the case"), &config.case, &manifest)?;
    check_conditions(config)?;
    Ok((image, manifest))
}

/// Refuses conditions about words on the way where a search brings stores to memory that should wait
/// in a store buffer, since no other CPU can tell: the condition could.
fn check_conditions(config: &Config) -> Result<(), ExploreError> {
    if config.memory != Memory::Tso || config.strategy == Strategy::Reference {
        return Ok(());
    }
    let is_word = |part: &Part| matches!(part.says, Says::Word { .. });
    let mut conditions = config.case.conditions.iter();
    match conditions.find(|it| it.on_the_way && it.parts.iter().any(is_word)) {
        None => Ok(()),
        Some(condition) => Err(ExploreError::WaitingWords(condition.to_string())),
    }
}

/// Checks that a guest with this manifest can be told everything in `case`, and can break what the
/// case expects. `name` is what error messages call the case.
///
/// # Errors
/// [`ExploreError`] for the first thing that is not possible.
pub(super) fn check_case(name: &str, case: &Case, manifest: &Manifest) -> Result<(), ExploreError> {
    let commands = case.commands(manifest);
    commands.map_err(|error| ExploreError::Case(name.to_owned(), error))?;
    let expected = case.check_expected(manifest);
    expected.map_err(|error| ExploreError::NeverBreaks(name.to_owned(), Box::new(error)))
}

/// Refuses options for the guest that have no effect in a search.
///
/// # Errors
/// [`NoEffect`] for the first such option.
pub(super) fn check_options(
    manifest: &Manifest,
    case: &Case,
    append: &str,
) -> Result<(), NoEffect> {
    options::check(manifest, &case.append, "the case (append)")?;
    options::check(manifest, append, "--append")
}
