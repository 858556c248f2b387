//! The specimen as a transition system. Only forwards; everything is done elsewhere.

use super::breach::Breach;
use super::errors::SpecimenError;
use super::machine::Specimen;
use super::state::State;
use super::stepping::Moved;
use super::stopped::{Stop, Stopped};
use crate::explore::schedule::{Choice, Granularity};
use crate::explore::search::system::{Holding, TransitionSystem};
use crate::explore::sharing::Sharing;
use crate::explore::stop_reason::StopReason;

impl TransitionSystem for Specimen {
    fn attach(&mut self) {
        self.attach();
    }

    fn detach(&mut self) {
        self.detach();
    }

    fn adopt(&mut self, state: &State) -> Result<bool, SpecimenError> {
        self.adopt(state)
    }

    fn root(&self) -> &State {
        self.root()
    }

    fn granularity(&self) -> Granularity {
        self.granularity()
    }

    fn cpus(&self) -> &[Stopped] {
        self.cpus()
    }

    fn describe(&self, at: Stop) -> String {
        self.describe(at)
    }

    fn vectors(&self) -> &[u8] {
        &self.vectors
    }

    fn follow_sharing(&mut self, sharing: &Sharing) {
        self.follow_sharing(sharing);
    }

    fn is_behind(&self, sharing: &Sharing) -> bool {
        self.buffering.is_behind(sharing)
    }

    fn choices(&self) -> Vec<Choice> {
        self.choices()
    }

    fn advance(&mut self, choice: Choice, sharing: &mut Sharing) -> Result<Moved, SpecimenError> {
        self.advance(choice, sharing)
    }

    fn save(&mut self) -> State {
        self.save()
    }

    fn load(&mut self, state: &State) {
        self.load(state);
    }

    fn rewind(&mut self) {
        self.rewind();
    }

    fn mend(&mut self) -> Result<(), SpecimenError> {
        self.mend()
    }

    fn keep_new_pages(&mut self) -> Result<bool, SpecimenError> {
        self.keep_new_pages()
    }

    fn advance_to_next_stop(
        &mut self,
        choice: Choice,
        sharing: &mut Sharing,
    ) -> Result<Moved, SpecimenError> {
        self.advance_to_next_stop(choice, sharing)
    }

    fn holding(&self, is_end: bool) -> Holding {
        self.holding(is_end)
    }

    fn data_races(&self) -> Vec<Breach> {
        self.data_races()
    }

    fn buffered(&self) -> Vec<u64> {
        self.buffering.addresses()
    }

    fn is_over(&self) -> bool {
        self.is_over()
    }

    fn judge(&mut self) -> Result<Option<Breach>, SpecimenError> {
        self.judge()
    }

    fn outcome(&self) -> u128 {
        self.outcome()
    }

    fn stop_reason(&self) -> Option<StopReason> {
        self.stop_reason()
    }
}
