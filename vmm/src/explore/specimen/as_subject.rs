//! The specimen as what a search moves. Everything is done elsewhere.

use super::{Breach, Moved, Specimen, SpecimenError, State, Stop, Stopped};
use crate::explore::schedule::{Choice, Granularity};
use crate::explore::search::Why;
use crate::explore::search::subject::Subject;
use crate::explore::sharing::Sharing;

impl Subject for Specimen {
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

    fn is_over(&self) -> bool {
        self.is_over()
    }

    fn judge(&mut self) -> Result<Option<Breach>, SpecimenError> {
        self.judge()
    }

    fn outcome(&self) -> u128 {
        self.outcome()
    }

    fn is_to_end(&self) -> Option<Why> {
        self.is_to_end()
    }
}
