//! The stacks of CPUs: on which CPU's stack an address is, and in which function's frame. Only
//! reads.

use shared::lab::Contexts;

use super::machine::Specimen;

/// The greatest number of frames that are followed.
const DEPTH: usize = 64;

/// A place on a CPU's stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnStack {
    /// The CPU.
    pub cpu: usize,
    /// An address in the function whose frame contains it, if the frames can be followed that far.
    pub function: Option<u64>,
}

impl Specimen {
    /// The eight bytes at `address`, a multiple of eight, in the initial state.
    pub fn word_at_first(&self, address: u64) -> Option<u64> {
        let start = usize::try_from(address).ok().filter(|at| at % 8 == 0)?;
        let bytes = self.origin.get(start..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }

    /// The place of `address` on a CPU's stack, if it is on one.
    pub fn on_stack(&self, address: u64) -> Option<OnStack> {
        let within = |[start, end]: [u64; 2]| (start..end).contains(&address);
        let whose = |Contexts { task, handler, .. }: &Contexts| within(*task) || within(*handler);
        let cpu = self.contexts.iter().position(whose)?;
        let function = self.function_around(cpu, address);
        Some(OnStack { cpu, function })
    }

    /// An address in the function of `cpu` whose frame contains `address`.
    fn function_around(&self, cpu: usize, address: u64) -> Option<u64> {
        let regs = &self.cpus[cpu].regs;
        // The function that rings the doorbell has no stack frame of its own.
        let (mut low, mut returns_to, mut frame) = (regs.rsp, self.word(regs.rsp)?, regs.rbp);
        for _ in 0..DEPTH {
            // The caller's frame pointer and the return address follow the frame.
            let high = frame.checked_add(16)?;
            if (low..high).contains(&address) {
                // A return address points after the call.
                return Some(returns_to.wrapping_sub(1));
            }
            let next = self.word(frame).filter(|next| *next > frame)?;
            (low, returns_to, frame) = (high, self.word(frame + 8)?, next);
        }
        None
    }
}
