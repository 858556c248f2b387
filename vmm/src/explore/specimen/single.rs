//! Steps to the very next stop that still teach what CPUs share. For callers that may not pass over
//! any stop, because something broke after it.

use super::breach::Breach;
use super::errors::SpecimenError;
use super::machine::Specimen;
use super::stopped::teach;
use crate::explore::schedule::Choice;
use crate::explore::sharing::Sharing;

impl Specimen {
    /// As [`Specimen::advance`], but only to the next stop. Returns what broke.
    ///
    /// # Errors
    /// As [`Specimen::advance`].
    pub fn advance_one(
        &mut self,
        choice: Choice,
        sharing: &mut Sharing,
    ) -> Result<Option<Breach>, SpecimenError> {
        teach(&self.cpus, choice, sharing);
        let breach = self.follow(choice)?;
        if breach.is_none() {
            let _ = self.is_contended(choice.cpu, sharing)?;
        }
        Ok(breach)
    }
}
