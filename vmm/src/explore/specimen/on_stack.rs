//! What is on the stacks of CPUs: whose an address is, and in which function's frame. Looks, and
//! changes nothing.

use shared::lab::Contexts;

use super::machine::Specimen;

/// Frames that are followed.
const DEPTH: usize = 64;

/// A place on a CPU's stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnStack {
    /// The CPU.
    pub cpu: usize,
    /// An address in the function whose frame it is in, as far as frames can be followed.
    pub function: Option<u64>,
}

impl Specimen {
    /// The eight bytes at `address`, a multiple of eight, as they were at the beginning of every
    /// schedule.
    pub fn word_at_first(&self, address: u64) -> Option<u64> {
        let start = usize::try_from(address).ok().filter(|at| at % 8 == 0)?;
        let bytes = self.origin.get(start..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }

    /// On which CPU's stack `address` is, if it is on one.
    pub fn on_stack(&self, address: u64) -> Option<OnStack> {
        let within = |[start, end]: [u64; 2]| (start..end).contains(&address);
        let whose = |Contexts { task, handler, .. }: &Contexts| within(*task) || within(*handler);
        let cpu = self.contexts.iter().position(whose)?;
        let function = self.function_around(cpu, address);
        Some(OnStack { cpu, function })
    }

    /// An address in the function of `cpu` in whose frame `address` is.
    fn function_around(&self, cpu: usize, address: u64) -> Option<u64> {
        let regs = &self.cpus[cpu].regs;
        // What it rings the doorbell in has no frame of its own.
        let (mut low, mut returns_to, mut frame) = (regs.rsp, self.word(regs.rsp)?, regs.rbp);
        for _ in 0..DEPTH {
            // The address to return to and the caller's frame pointer come behind a frame.
            let high = frame.checked_add(16)?;
            if (low..high).contains(&address) {
                // A return address is behind the call.
                return Some(returns_to.wrapping_sub(1));
            }
            let next = self.word(frame).filter(|next| *next > frame)?;
            (low, returns_to, frame) = (high, self.word(frame + 8)?, next);
        }
        None
    }
}
