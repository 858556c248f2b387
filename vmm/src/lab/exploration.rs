//! What only the explorer needs of the lab: which of its pages are no part of the state, and what
//! the guest says of its stacks.

use shared::lab::{Contexts, Header, Section};

use super::Lab;
use crate::page_size::PAGE_SIZE;

impl Lab {
    /// The pages whose contents neither the guest nor an oracle ever acts upon: its counters and
    /// its trace rings. The tallies of calls are not among them, since oracles read those.
    pub(crate) fn unobserved_pages(&self) -> Vec<usize> {
        self.pages([self.layout.counters, self.layout.rings])
    }

    /// The pages that the VMM writes: the mailboxes, where commands are posted.
    pub(crate) fn posted_pages(&self) -> Vec<usize> {
        self.pages([self.layout.mailboxes])
    }

    fn pages<const N: usize>(&self, sections: [Section; N]) -> Vec<usize> {
        let pages = sections.map(|section| {
            let start = self.base + section.offset;
            start / PAGE_SIZE as u64..(self.base + section.end()).div_ceil(PAGE_SIZE as u64)
        });
        let numbers = pages.into_iter().flatten();
        numbers
            .filter_map(|number| usize::try_from(number).ok())
            .collect()
    }

    /// Guest-physical address of the count of findings.
    pub(crate) fn findings_made_at(&self) -> u64 {
        self.base + std::mem::offset_of!(Header, findings_made) as u64
    }

    /// Clears the times in the header, which differ from boot to boot.
    pub(crate) fn forget_times(&self) {
        for at in [
            std::mem::offset_of!(Header, boot_tsc),
            std::mem::offset_of!(Header, workload_tsc),
        ] {
            self.write(at as u64, &[0; 8]);
        }
    }

    /// The contexts of `cpu`, as the guest says.
    pub(crate) fn contexts(&self, cpu: u32) -> Contexts {
        let at = self.layout.contexts.entry(cpu.into());
        at.map(|at| self.read(at)).unwrap_or_default()
    }

    /// Guest-physical address of the count of iterations in which `cpu` waits.
    pub(crate) fn waits_at(&self, cpu: u32) -> u64 {
        let at = self.layout.contexts.entry(cpu.into()).unwrap_or_default();
        self.base + at + std::mem::offset_of!(Contexts, waits) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::lab::{ALIGN, Layout, MAX_CPUS, Section};
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    #[test]
    fn what_an_oracle_reads_is_part_of_the_state() {
        for cpus in [1, 4, 65, MAX_CPUS] {
            let layout = Layout::new(cpus).unwrap();
            let size = usize::try_from(ALIGN + layout.size).unwrap();
            let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).unwrap();
            let lab = Lab::prepare(memory, ALIGN, layout).unwrap();
            let unobserved = lab.unobserved_pages();
            let pages = |section: Section| {
                let first = (ALIGN + section.offset) as usize / PAGE_SIZE;
                first..((ALIGN + section.end()) as usize).div_ceil(PAGE_SIZE)
            };
            for section in [layout.tallies, layout.ledger, layout.findings] {
                assert!(pages(section).all(|page| !unobserved.contains(&page)));
            }
            for section in [layout.counters, layout.rings] {
                assert!(pages(section).all(|page| unobserved.contains(&page)));
            }
        }
    }
}
