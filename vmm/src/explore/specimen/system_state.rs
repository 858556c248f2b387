//! System states: what a vCPU has besides its general registers, such as segments, control
//! registers, MSRs, its local APIC, and whether it runs or waits to be started. A step does not
//! change them, except for one in which a CPU is reset or started. So there are few, and each is kept
//! once. Plain data: which vCPU is in which one is noted here, and brought about by
//! [`super::starting`].

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::machine::state::CpuState;

/// The system state of a CPU. It means the same on each of several machines that begin alike.
#[derive(Debug, Clone, Default)]
pub(super) enum SystemState {
    /// That in which the CPU begins.
    #[default]
    First,
    /// Another one, with a hash of what it consists of.
    Later(u128, Arc<CpuState>),
}

impl SystemState {
    fn number(&self) -> u128 {
        match self {
            Self::First => 0,
            Self::Later(hash, _) => *hash,
        }
    }
}

impl PartialEq for SystemState {
    fn eq(&self, other: &Self) -> bool {
        self.number() == other.number()
    }
}

impl Hash for SystemState {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number().hash(state);
    }
}

/// The system states that are known, and those in which the vCPUs are.
#[derive(Debug, Default)]
pub(super) struct SystemStates {
    /// By CPU: that in which it begins.
    first: Vec<CpuState>,
    /// By CPU: all others.
    later: Vec<Vec<SystemState>>,
    /// By CPU: that in which its vCPU is. `None` if that is not known.
    now: Vec<Option<SystemState>>,
}

impl SystemStates {
    /// The CPUs begin, and are, in these.
    pub(super) fn beginning(first: Vec<CpuState>) -> Self {
        Self {
            later: vec![Vec::new(); first.len()],
            now: vec![Some(SystemState::First); first.len()],
            first,
        }
    }

    /// Those in which the CPUs begin.
    pub(super) fn first(&self) -> impl Iterator<Item = &CpuState> {
        self.first.iter()
    }

    /// What `system` is on `cpu`.
    pub(super) fn get<'a>(&'a self, cpu: usize, system: &'a SystemState) -> &'a CpuState {
        match system {
            SystemState::First => &self.first[cpu],
            SystemState::Later(_, state) => state,
        }
    }

    /// Which one `state` is, in which the vCPU of `cpu` is now.
    pub(super) fn find(&mut self, cpu: usize, state: CpuState) -> SystemState {
        let is_it = |known: &CpuState| state.difference(known).is_none();
        let known = self.later[cpu].iter().find(|it| match it {
            SystemState::First => false,
            SystemState::Later(_, known) => is_it(known),
        });
        let found = match known {
            _ if is_it(&self.first[cpu]) => SystemState::First,
            Some(known) => known.clone(),
            None => {
                let new = SystemState::Later(state.system_hash(), Arc::new(state));
                self.later[cpu].push(new.clone());
                new
            }
        };
        self.now[cpu] = Some(found.clone());
        found
    }

    /// Whether the vCPU of `cpu` is in `system`, as far as is known.
    pub(super) fn is_in(&self, cpu: usize, system: &SystemState) -> bool {
        self.now[cpu].as_ref() == Some(system)
    }

    /// The vCPU of `cpu` is in this one now.
    pub(super) fn set_now(&mut self, cpu: usize, system: SystemState) {
        self.now[cpu] = Some(system);
    }

    /// It is not known in which one the vCPU of `cpu` is.
    pub(super) fn forget_now(&mut self, cpu: usize) {
        self.now[cpu] = None;
    }

    /// Every vCPU is in that in which its CPU begins.
    pub(super) fn set_now_first(&mut self) {
        self.now.fill(Some(SystemState::First));
    }
}
