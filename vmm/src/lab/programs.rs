//! The programs of the lab: what the functions of calls do, as the VMM writes it for the guest.
//! Equal programs are kept once, and none is ever replaced, since the function of a call can run
//! long after the command that made the call is done. Does not judge what they say.

use std::sync::{MutexGuard, PoisonError};

use shared::program::{PROGRAMS, Program, STEPS, Step};
use zerocopy::{FromZeros, IntoBytes};

use super::Lab;
use super::command::Command;

/// The lab has no room for another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// One program is too long.
    #[error("{0} deeds are in one pair of braces, of which there can be {STEPS}")]
    Long(usize),
    /// There are too many programs.
    #[error(
        "the guest was told {PROGRAMS} programs (deeds in braces), each different from all \
         others, and has no room for another"
    )]
    Many,
}

impl Lab {
    /// Writes `program` for the guest to find, if it is not there yet.
    ///
    /// # Errors
    /// [`NoRoom`] if it has no room.
    pub fn keep_program(&self, program: &[Command]) -> Result<(), NoRoom> {
        if program.len() > STEPS {
            return Err(NoRoom::Long(program.len()));
        }
        let mut kept = self.programs();
        if program.is_empty() || kept.iter().any(|it| it == program) {
            return Ok(());
        }
        let place = kept.len() as u64;
        let at = self.layout.programs.entry(place).ok_or(NoRoom::Many)?;
        let mut written = Program::new_zeroed();
        written.length = program.len() as u64;
        for (step, command) in written.steps.iter_mut().zip(program) {
            *step = in_lab(command);
        }
        self.write(at, written.as_bytes());
        kept.push(program.to_vec());
        Ok(())
    }

    /// The number of `program` for a mailbox: 0 if it is empty or was not kept.
    pub(super) fn program_number(&self, program: &[Command]) -> u64 {
        let kept = self.programs();
        let place = kept.iter().position(|it| it == program);
        place.map_or(0, |place| place as u64 + 1)
    }

    fn programs(&self) -> MutexGuard<'_, Vec<Vec<Command>>> {
        self.kept_programs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// `command` as a step of a program. It has no program itself.
fn in_lab(command: &Command) -> Step {
    Step {
        verb: command.verb,
        flags: command.flags(),
        arguments: command.arguments,
        mask: command.mask_words(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpus::CpuSet;

    #[test]
    fn a_program_is_kept_once_and_has_its_number_in_the_mailbox() {
        let lab = Lab::of_two();
        let steps = vec![
            Command::about(4, 1),
            Command::among(5, CpuSet::from_iter([0, 65])).waiting(true),
        ];
        lab.keep_program(&[Command::new(9)]).unwrap();
        lab.keep_program(&steps).unwrap();
        lab.keep_program(&steps).unwrap();
        lab.keep_program(&[]).unwrap();
        assert_eq!(lab.programs().len(), 2);
        let told = Command {
            program: steps,
            ..Command::about(1, 0)
        };
        lab.post(0, 1, &told);
        assert_eq!(lab.mailbox(0).unwrap().program, 2);
        lab.post(0, 2, &Command::new(3));
        assert_eq!(lab.mailbox(0).unwrap().program, 0);
        let at = lab.layout.programs.entry(1).unwrap();
        let found: Program = lab.read(at);
        assert_eq!(found.length, 2);
        assert_eq!((found.steps[0].verb, found.steps[0].arguments[0]), (4, 1));
        assert_eq!((found.steps[1].flags, found.steps[1].mask[1]), (1, 2));
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let lab = Lab::of_two();
        let long = vec![Command::new(1); STEPS + 1];
        assert_eq!(lab.keep_program(&long), Err(NoRoom::Long(STEPS + 1)));
        for verb in 1..=PROGRAMS {
            lab.keep_program(&[Command::new(verb)]).unwrap();
        }
        assert_eq!(lab.keep_program(&[Command::new(99)]), Err(NoRoom::Many));
        lab.keep_program(&[Command::new(1)]).unwrap();
    }
}
