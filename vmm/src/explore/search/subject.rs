//! What a search moves: the transition system that it walks through. The specimen is one; a model
//! of a few words and instructions is another, on which searches are held against each other
//! without a machine.

use super::Why;
use crate::explore::schedule::{Choice, Granularity};
use crate::explore::sharing::Sharing;
use crate::explore::specimen::{Breach, Moved, SpecimenError, State, Stop, Stopped};

/// A transition system.
pub trait Subject {
    /// The beginning of every schedule.
    fn root(&self) -> &State;

    /// Where CPUs stop.
    fn granularity(&self) -> Granularity;

    /// The CPUs as they stand.
    fn cpus(&self) -> &[Stopped];

    /// A stop in words.
    fn describe(&self, at: Stop) -> String;

    /// The vectors by which CPUs tell each other of something to do. A search may pay less heed to
    /// others.
    fn vectors(&self) -> &[u8];

    /// The choices there are. None means that nothing can go on.
    fn choices(&self) -> Vec<Choice>;

    /// Does what `choice` says, and goes on as long as nobody can get in the way of that CPU.
    ///
    /// # Errors
    /// [`SpecimenError`] if the host fails, or a signal comes. What the guest does is no error.
    fn advance(&mut self, choice: Choice, sharing: &mut Sharing) -> Result<Moved, SpecimenError>;

    /// The state as it is.
    fn save(&mut self) -> State;

    /// Puts it back to `state`.
    fn load(&mut self, state: &State);

    /// Puts it back to the beginning.
    fn rewind(&mut self);

    /// Makes the vCPUs, but for their general registers, what they were at first, if the guest died
    /// or ended on one.
    ///
    /// # Errors
    /// If the host does not take it back.
    fn mend(&mut self) -> Result<(), SpecimenError>;

    /// Keeps, from now on, the pages that were written for the first time. Whether there were any:
    /// then states that were saved before it last was asked may lack them.
    ///
    /// # Errors
    /// If the host does not say.
    fn keep_new_pages(&mut self) -> Result<bool, SpecimenError>;

    /// Whether it is over: every CPU has done all it was told, and has nothing left to take.
    fn is_over(&self) -> bool;

    /// What broke, if nothing can go on.
    ///
    /// # Errors
    /// As [`Subject::advance`].
    fn judge(&mut self) -> Result<Option<Breach>, SpecimenError>;

    /// A number for what has become of it, at an end.
    fn outcome(&self) -> u128;

    /// Why the search is to end now, if it is.
    fn is_to_end(&self) -> Option<Why>;
}
