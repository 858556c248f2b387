//! The transition system that a search walks through. The specimen is one. A model of a few words
//! and instructions is another: on it the searches are compared with each other without a machine.

use crate::explore::schedule::{Act, Choice, Granularity, Turn};
use crate::explore::sharing::Sharing;
use crate::explore::specimen::{Breach, Moved, SpecimenError, State, Stop, Stopped};
use crate::explore::stop_reason::StopReason;

/// Which conditions of a case hold in a state, as bits by their indices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    /// Those that hold.
    pub holds: u64,
    /// Those of which it cannot be told.
    pub untold: u64,
}

/// A transition system.
pub trait TransitionSystem: Send {
    /// From now on this thread makes its steps.
    fn attach(&mut self);

    /// This thread makes no more of them. To be called before it ends.
    fn detach(&mut self);

    /// Gets ready to restore `state`, which another system of the same initial state has saved.
    /// Returns whether states that were saved before may turn out not to be whole, as
    /// [`TransitionSystem::keep_new_pages`] does.
    ///
    /// # Errors
    /// If the host does not say which pages were written.
    fn adopt(&mut self, state: &State) -> Result<bool, SpecimenError>;

    /// The initial state, at which every schedule begins.
    fn root(&self) -> &State;

    /// Where CPUs stop.
    fn granularity(&self) -> Granularity;

    /// The CPUs in the present state.
    fn cpus(&self) -> &[Stopped];

    /// A stop in words.
    fn describe(&self, at: Stop) -> String;

    /// The vectors by which CPUs tell each other to do something. A search may reduce less for
    /// other vectors.
    fn vectors(&self) -> &[u8];

    /// From now on stores wait in store buffers where `sharing` knows that another CPU can tell. To
    /// be called before a search begins, or begins anew: a state means something else then.
    fn follow_sharing(&mut self, sharing: &Sharing);

    /// Whether `sharing` has since learnt more about that, so that what was found is void.
    fn is_behind(&self, sharing: &Sharing) -> bool;

    /// The choices in the present state. Without any, no CPU can go on.
    fn choices(&self) -> Vec<Choice>;

    /// Makes the step `choice`, and goes on with its CPU until another CPU could interfere.
    ///
    /// # Errors
    /// [`SpecimenError`] if the host fails, or a signal arrives. What the guest does is no error.
    fn advance(&mut self, choice: Choice, sharing: &mut Sharing) -> Result<Moved, SpecimenError>;

    /// Makes the step `choice`, only to the next stop of its CPU, whether or not another CPU could
    /// interfere there.
    ///
    /// # Errors
    /// As [`TransitionSystem::advance`].
    fn advance_to_next_stop(
        &mut self,
        choice: Choice,
        sharing: &mut Sharing,
    ) -> Result<Moved, SpecimenError>;

    /// Which conditions of the case hold in the present state. Those about ends hold only if
    /// `is_end` says that it is one, and every CPU has done what it was told.
    fn holding(&self, is_end: bool) -> Holding;

    /// The data races of the present state, if they are looked for.
    fn data_races(&self) -> Vec<Breach>;

    /// The addresses of the words to which stores wait in store buffers, if not all of them or none
    /// do.
    fn buffered(&self) -> Vec<u64>;

    /// Saves the present state.
    fn save(&mut self) -> State;

    /// Restores `state`, which this system has saved or adopted.
    fn load(&mut self, state: &State);

    /// Restores the initial state.
    fn rewind(&mut self);

    /// Restores the vCPUs, except for their general registers, if the guest died or ended on one.
    ///
    /// # Errors
    /// If the host fails to restore them.
    fn mend(&mut self) -> Result<(), SpecimenError>;

    /// Starts to save the pages that were written for the first time. Returns whether there were
    /// any: states that were saved since the previous call may then lack them.
    ///
    /// # Errors
    /// If the host does not say which pages were written.
    fn keep_new_pages(&mut self) -> Result<bool, SpecimenError>;

    /// Whether every CPU has done everything it was told, has no interrupt left to take, and has
    /// brought all its stores to memory.
    fn is_over(&self) -> bool;

    /// What is broken in the present state, in which no CPU can go on.
    ///
    /// # Errors
    /// As [`TransitionSystem::advance`].
    fn judge(&mut self) -> Result<Option<Breach>, SpecimenError>;

    /// A hash of the present state, which is a final one. Equal final states have equal hashes,
    /// whichever search reached them.
    fn outcome(&self) -> u128;

    /// Why the search has to stop now, if it has to.
    fn stop_reason(&self) -> Option<StopReason>;
}

/// The turn that has just ended, and that began with `choice` and came to `stops` stops.
pub fn turn(system: &dyn TransitionSystem, choice: Choice, stops: u32) -> Turn {
    let at = system.cpus()[choice.cpu].at;
    Turn {
        cpu: u32::try_from(choice.cpu).unwrap_or(u32::MAX),
        takes: choice.takes(),
        flushes: choice.act == Act::Flush,
        arrives: choice.act == Act::Arrive,
        stops,
        until: system.describe(at),
        state: None,
    }
}
