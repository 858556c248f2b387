//! The mailboxes and the arm bits of the lab, as the VMM writes and reads them. Must not judge
//! commands: which of them make sense, and when the next may be posted, is decided in
//! [`crate::control`].

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use shared::mailbox::Mailbox;
use shared::probe::Arms;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use super::Lab;
pub use super::command::Command;

impl Lab {
    /// Puts `command` into the mailbox of `cpu` as its `number`th, from 1. Its program must have been
    /// kept before ([`Lab::keep_program`]).
    pub fn post(&self, cpu: u32, number: u64, command: &Command) {
        let Some(at) = self.layout.mailboxes.entry(cpu.into()) else {
            return;
        };
        let field = |offset: usize, bytes: &[u8]| self.write(at + offset as u64, bytes);
        field(offset_of!(Mailbox, verb), command.verb.as_bytes());
        field(offset_of!(Mailbox, flags), command.flags().as_bytes());
        let program = self.program_number(&command.program);
        field(offset_of!(Mailbox, program), program.as_bytes());
        field(offset_of!(Mailbox, arguments), command.arguments.as_bytes());
        field(offset_of!(Mailbox, mask), command.mask_words().as_bytes());
        // Release: a CPU that sees the number also sees the command. The write cannot fail, since
        // `prepare` has reached both ends of the lab.
        let posted = self.base + at + offset_of!(Mailbox, posted) as u64;
        let _ = self
            .memory
            .store(number, GuestAddress(posted), Ordering::Release);
    }

    /// The mailbox of `cpu` as it is now. `taken` and `done` are read before the rest, because the
    /// guest writes the result of a command before it says that the command is done.
    pub fn mailbox(&self, cpu: u32) -> Option<Mailbox> {
        let at = self.layout.mailboxes.entry(cpu.into())?;
        let load = |offset: usize| {
            let address = GuestAddress(self.base + at + offset as u64);
            self.memory
                .load::<u64>(address, Ordering::Acquire)
                .unwrap_or(0)
        };
        // Read before the rest, which is then at least as new.
        let taken = load(offset_of!(Mailbox, taken));
        let done = load(offset_of!(Mailbox, done));
        Some(Mailbox {
            taken,
            done,
            ..self.read(at)
        })
    }

    /// Whether the guest says that it takes commands from its mailboxes.
    pub fn takes_commands(&self) -> bool {
        self.mailbox(0).is_some_and(|mailbox| mailbox.listens != 0)
    }

    /// Sets the arm bits of `cpu`: the points at which it is to stop.
    pub fn arm(&self, cpu: u32, arms: &Arms) {
        if let Some(at) = self.layout.arms.entry(cpu.into()) {
            self.write(at, arms.as_bytes());
        }
    }

    /// Writes what a point is armed for into its word at `address` of the guest's image. An address
    /// outside the guest's memory, which only a broken image has, is ignored.
    pub fn arm_point(&self, address: u64, armed: u32) {
        let _ = self
            .memory
            .store(armed, GuestAddress(address), Ordering::Release);
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) {
        // `prepare` has reached both ends of the lab, so this cannot fail.
        let _ = self
            .memory
            .write_slice(bytes, GuestAddress(self.base + offset));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_posted_can_be_read() {
        let lab = Lab::of_two();
        let command = Command::among(3, [0, 65].into_iter().collect()).waiting(true);
        lab.post(1, 7, &command);
        let mailbox = lab.mailbox(1).unwrap();
        assert_eq!((mailbox.posted, mailbox.verb), (7, 3));
        assert_eq!((mailbox.flags, mailbox.mask[1]), (shared::mailbox::WAIT, 2));
        assert_eq!(lab.mailbox(0).unwrap().posted, 0);
        assert!(lab.mailbox(2).is_none());
    }

    #[test]
    fn arms_of_a_cpu_that_does_not_exist_are_nowhere() {
        let lab = Lab::of_two();
        lab.arm(1, &[1, 2, 3, 4]);
        lab.arm(2, &[1; 4]);
        let at = lab.layout.arms.entry(1).unwrap();
        assert_eq!(lab.read::<Arms>(at), [1, 2, 3, 4]);
    }
}
