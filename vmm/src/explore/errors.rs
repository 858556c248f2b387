//! Why nothing was explored or replayed, and the exit status for each reason.

use std::io;
use std::path::PathBuf;

use super::case::{CaseError, NeverBreaks};
use super::checkpoint_file::CheckpointError;
use super::options::NoEffect;
use super::retrace::Diverged;
use super::sharing::OtherCpus;
use super::specimen::SpecimenError;

use crate::control_characters::spell_out_path;
use crate::machine::limits;

/// Why nothing was explored or replayed.
#[derive(Debug, thiserror::Error)]
pub enum ExploreError {
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] crate::machine::image::ImageError),
    /// The specimen cannot be made, or cannot go on.
    #[error(transparent)]
    Specimen(#[from] SpecimenError),
    /// The schedule that was found cannot be repeated, which is a bug of the explorer.
    #[error("the schedule that was found does not lead there again: {0}")]
    NotAgain(Diverged),
    /// The case cannot be parsed, or contains something that the guest cannot be told.
    #[error("{0}: {1}")]
    Case(String, CaseError),
    /// The schedule reaches what its case does not ask for.
    #[error("the schedule says that it reaches \"{0}\", which is no line of its case")]
    NoSuchCondition(String),
    /// A condition is about words on the way, and stores can wait.
    #[error(
        "\"{0}\" is about words on the way: say --memory sc or --strategy reference. With store \
         buffers the other strategies have stores wait only where another CPU can tell"
    )]
    WaitingWords(String),
    /// The case expects a breach that cannot be found in this guest.
    #[error("{0}, {1}")]
    NeverBreaks(String, Box<NeverBreaks>),
    /// The guest was given an option that has no effect.
    #[error(transparent)]
    Word(#[from] NoEffect),
    /// The given knowledge of shared memory is for another number of CPUs.
    #[error(transparent)]
    OtherCpus(#[from] OtherCpus),
    /// The checkpoint is of no use.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No files can be made for the limit on memory.
    #[error(
        "no files can be made in {}, where the search would keep states (--memory-limit, \
         --memory-files)",
        spell_out_path(.0)
    )]
    Storage(PathBuf, #[source] io::Error),
    /// The schedule was found on another image.
    #[error(
        "the schedule was found on guest image {of}, this is {this}; take the image it was found \
         on, or --any-image to try all the same"
    )]
    OtherImage {
        /// The hash of the image on which it was found.
        of: String,
        /// The hash of the given image.
        this: String,
    },
}

impl ExploreError {
    /// The exit status of the command.
    pub fn exit_status(&self) -> u8 {
        match self {
            _ if limits::are_reached(self) => 3,
            Self::Image(_)
            | Self::Case(..)
            | Self::NoSuchCondition(_)
            | Self::WaitingWords(_)
            | Self::NeverBreaks(..)
            | Self::Word(_)
            | Self::OtherCpus(_)
            | Self::Checkpoint(_)
            | Self::Storage(..)
            | Self::OtherImage { .. } => 2,
            Self::Specimen(
                SpecimenError::NoPoint { .. }
                | SpecimenError::Case(_)
                | SpecimenError::Programs(_)
                | SpecimenError::Condition { .. }
                | SpecimenError::NoEnding
                | SpecimenError::NotReady(_)
                | SpecimenError::Vector { .. }
                | SpecimenError::Piece { .. }
                | SpecimenError::Stack { .. }
                | SpecimenError::Checkpoint(_),
            ) => 2,
            Self::Specimen(SpecimenError::Ended(_) | SpecimenError::Late(_)) => 5,
            Self::Specimen(SpecimenError::Machine(error)) if error.is_of_what_was_given() => 2,
            Self::Specimen(_) | Self::NotAgain(_) => 3,
        }
    }
}
