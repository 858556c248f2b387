//! What the CPUs of a specimen pass over without an exit: fills the tables ([`super::passing`]) as
//! the search goes on, tells the guest what the CPU that runs may pass over, and finds out what it
//! has passed over. An access comes into a table only where the search itself has just passed over
//! it, in the same round, by the same context, with the same locks held.

use shared::passing::EVERY;

use super::errors::SpecimenError;
use super::machine::Specimen;
use super::passing::{Allowance, MOST, Situation};
use crate::explore::sharing::{CpuContext, Sharing};

impl Specimen {
    /// Has CPUs pass over accesses without an exit, until [`Specimen::stop_everywhere`], as far as
    /// `sharing` has them passed over in its present round.
    pub(super) fn pass_over(&mut self, sharing: &Sharing) {
        self.passing.begin(sharing.round(), self.serial.ram_mut());
    }

    /// Has CPUs stop before every access.
    pub(super) fn stop_everywhere(&mut self) {
        self.passing.is_allowed = false;
    }

    /// Has CPUs stop before every access until the search has passed over it anew.
    pub(super) fn forget_passing(&mut self) {
        self.passing.round = None;
    }

    /// Notes that the search passes over the access before which `cpu` has stopped. A store that
    /// goes to the store buffer is passed over as well, but not by the CPU itself, which would bring
    /// it to memory.
    pub(super) fn passes_over(&mut self, cpu: usize) {
        if self.cpus[cpu].store_to_buffer(&self.buffering).is_some() {
            return;
        }
        let ram = self.serial.ram_mut();
        self.passing.add(cpu, &self.cpus[cpu], ram);
    }

    /// What `cpu` may pass over in its next step, `most` accesses, if that is less than [`MOST`]. A
    /// handler begins in that step if `begins_handler`.
    pub(super) fn allowance(&mut self, cpu: usize, begins_handler: bool, most: u32) -> Allowance {
        let mut allowance = Allowance {
            number: 0,
            left: most.min(MOST),
            passed: 0,
            in_handler: begins_handler || self.cpus[cpu].in_handler,
            rings: true,
        };
        let stopped = &self.cpus[cpu];
        // The turns of a loop that waits are made up of all its accesses.
        let waits = !begins_handler && stopped.depth.is_in_loop();
        // Until an INIT arrives that is on its way, it can arrive at each access.
        if self.passing.is_allowed && !waits && stopped.arriving.is_empty() {
            let context = CpuContext {
                in_handler: allowance.in_handler,
                ..stopped.cpu_context(cpu)
            };
            let locks = stopped.locks[usize::from(context.in_handler)].clone();
            if let Some(number) = self.passing.number(Situation::new(context, locks)) {
                (allowance.number, allowance.rings) = (number, false);
            }
        }
        allowance
    }

    /// Tells the guest what the CPU that is about to go on may pass over.
    pub(super) fn tell(&mut self, allowance: &Allowance) {
        let Some(start) = self.passing.section else {
            return;
        };
        let mut situation = shared::passing::situation(allowance.number, allowance.in_handler);
        if allowance.rings {
            situation |= EVERY;
        }
        let ram = self.serial.ram_mut();
        ram.set_word(start, situation);
        ram.set_word(start.wrapping_add(8), allowance.left.into());
    }

    /// Finds out what `cpu`, which has just exited, has passed over, and which locks it holds now.
    ///
    /// # Errors
    /// [`SpecimenError::OtherSituation`] if the guest has written there what it must not.
    pub(super) fn catch_up(
        &mut self,
        cpu: usize,
        allowance: &mut Allowance,
    ) -> Result<(), SpecimenError> {
        let Some(start) = self.passing.section.filter(|_| allowance.number != 0) else {
            return Ok(());
        };
        let word = |at| self.serial.ram().word(at).unwrap_or(0);
        let left = start.wrapping_add(8);
        let now = self.passing.used(allowance, word(start), word(left));
        let Some(now) = now else {
            self.is_hurt = true;
            return Err(SpecimenError::OtherSituation { cpu });
        };
        if now.number != allowance.number
            && let Some(situation) = self.passing.situation(now.number)
        {
            let context = usize::from(situation.context.in_handler);
            self.cpus[cpu].locks[context].clone_from(&situation.locks);
        }
        *allowance = now;
        Ok(())
    }
}
