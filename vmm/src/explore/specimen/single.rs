//! Steps to the next stop, whatever it is, by which it is learnt all the same what CPUs share: for
//! who may not pass over anything, since something broke behind it.

use super::breach::Breach;
use super::errors::SpecimenError;
use super::machine::Specimen;
use super::stopped::Stop;
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
        if let (None, Stop::Send { target, .. }) = (choice.takes, self.cpus[choice.cpu].at) {
            sharing.interrupts(target);
        }
        let breach = self.follow(choice)?;
        if breach.is_none() {
            let _ = self.is_contended(choice.cpu, sharing);
        }
        Ok(breach)
    }
}
