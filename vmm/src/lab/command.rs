//! A command for the mailbox of a CPU, as plain data. What the numbers mean is the guest's to say.

use shared::mailbox::MASK_WORDS;
use shared::manifest::ARGUMENTS;

use crate::cpus::CpuSet;

/// A command to one CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What to do: the number of a deed.
    pub verb: u32,
    /// Whether the CPU waits until it has been done everywhere.
    pub wait: bool,
    /// Its arguments by position, except a set of CPUs.
    pub arguments: [u64; ARGUMENTS],
    /// The argument that is a set of CPUs, if there is one.
    pub mask: CpuSet,
    /// What the function of the call that it makes does, or the interrupt that it asks for. These
    /// commands have no programs themselves.
    pub program: Vec<Command>,
}

impl Command {
    /// `verb`, without arguments.
    pub fn new(verb: u32) -> Self {
        Self {
            verb,
            wait: false,
            arguments: [0; ARGUMENTS],
            mask: CpuSet::default(),
            program: Vec::new(),
        }
    }

    /// `verb`, about `cpu`.
    pub fn about(verb: u32, cpu: u32) -> Self {
        let mut command = Self::new(verb);
        command.arguments[0] = cpu.into();
        command
    }

    /// `verb`, about `cpus`.
    pub fn among(verb: u32, cpus: CpuSet) -> Self {
        Self {
            mask: cpus,
            ..Self::new(verb)
        }
    }

    /// The same, which waits or does not.
    #[must_use]
    pub fn waiting(self, wait: bool) -> Self {
        Self { wait, ..self }
    }

    /// Its set of CPUs in a mailbox, CPU 0 in the lowest bit of the first word.
    pub(super) fn mask_words(&self) -> [u64; MASK_WORDS] {
        let mut mask = [0; MASK_WORDS];
        for (word, value) in mask.iter_mut().zip(self.mask.words()) {
            *word = *value;
        }
        mask
    }

    /// Its flags in a mailbox.
    pub(super) fn flags(&self) -> u32 {
        match self.wait {
            true => shared::mailbox::WAIT,
            false => 0,
        }
    }
}
