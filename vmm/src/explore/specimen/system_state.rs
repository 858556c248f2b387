//! System states: what a vCPU has besides its general registers, such as segments, control
//! registers, MSRs, its local APIC, and whether it runs or waits to be started. A step does not
//! change them, except for one in which a CPU is reset or started. So there are few, each is kept
//! once, and a state names them. Plain data: which vCPU is in which one is noted here, and brought
//! about by [`super::starting`].

use std::hash::{Hash, Hasher};

use crate::machine::state::CpuState;

/// A system state by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SystemStateId {
    number: usize,
    /// A hash of what it consists of, which is the same in every process; 0 for that in which its
    /// CPU begins.
    hash: u128,
}

impl SystemStateId {
    /// That in which `cpu` begins.
    pub(super) fn first(cpu: usize) -> Self {
        Self {
            number: cpu,
            hash: 0,
        }
    }
}

impl Hash for SystemStateId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// A system state that is known.
#[derive(Debug)]
struct Known {
    cpu: usize,
    state: CpuState,
    id: SystemStateId,
}

/// The system states that are known, and those in which the vCPUs are.
#[derive(Debug, Default)]
pub(super) struct SystemStates {
    /// By number. Those in which the CPUs begin come first.
    known: Vec<Known>,
    /// How many of them these are.
    cpus: usize,
    /// By CPU: that in which its vCPU is. `None` if that is not known.
    now: Vec<Option<SystemStateId>>,
}

impl SystemStates {
    /// The CPUs begin, and are, in these.
    pub(super) fn beginning(states: Vec<CpuState>) -> Self {
        let cpus = states.len();
        let known = |(cpu, state)| Known {
            cpu,
            state,
            id: SystemStateId::first(cpu),
        };
        Self {
            known: states.into_iter().enumerate().map(known).collect(),
            cpus,
            now: (0..cpus)
                .map(|cpu| Some(SystemStateId::first(cpu)))
                .collect(),
        }
    }

    /// Those in which the CPUs begin.
    pub(super) fn first(&self) -> impl Iterator<Item = &CpuState> {
        self.known[..self.cpus].iter().map(|known| &known.state)
    }

    /// The one with this number.
    pub(super) fn get(&self, id: SystemStateId) -> &CpuState {
        &self.known[id.number].state
    }

    /// The number of `state`, in which the vCPU of `cpu` is.
    pub(super) fn number(&mut self, cpu: usize, state: CpuState) -> SystemStateId {
        let is_it = |it: &&Known| it.cpu == cpu && state.difference(&it.state).is_none();
        if let Some(known) = self.known.iter().find(is_it) {
            return known.id;
        }
        let id = SystemStateId {
            number: self.known.len(),
            hash: state.system_hash(),
        };
        self.known.push(Known { cpu, state, id });
        id
    }

    /// That in which the vCPU of `cpu` is, if it is known.
    pub(super) fn now(&self, cpu: usize) -> Option<SystemStateId> {
        self.now[cpu]
    }

    /// The vCPU of `cpu` is in this one now, or in one that is not known.
    pub(super) fn set_now(&mut self, cpu: usize, now: Option<SystemStateId>) {
        self.now[cpu] = now;
    }

    /// Every vCPU is in that in which its CPU begins.
    pub(super) fn set_now_first(&mut self) {
        for (cpu, now) in self.now.iter_mut().enumerate() {
            *now = Some(SystemStateId::first(cpu));
        }
    }
}
