//! Binding vCPU threads to host CPUs, one each, in turn. Touches only the affinity of the thread
//! that asks.

use std::io;

use crate::cpus::{self, CpuSet};

/// Why a vCPU cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The host has no such CPUs, or this process may not use them.
    #[error("this host does not let us run on CPUs {missing}; it offers {offered} (--pin)")]
    NotOffered {
        /// CPUs that cannot be had.
        missing: CpuSet,
        /// CPUs that can be had.
        offered: CpuSet,
    },
    /// The host does not tell which CPUs there are.
    #[error("cannot read which CPUs we may run on")]
    Unknown(#[source] io::Error),
}

/// The host CPUs to which vCPUs are bound, in ascending order; at least one.
#[derive(Debug, Clone)]
pub struct Pins(Vec<u32>);

impl Pins {
    /// Checks that the host offers `cpus`.
    ///
    /// # Errors
    /// [`PinError`] names those it does not offer.
    pub fn new(cpus: &CpuSet) -> Result<Self, PinError> {
        let offered = offered().map_err(PinError::Unknown)?;
        let missing = cpus.without(&offered);
        if missing.is_empty() && !cpus.is_empty() {
            Ok(Self(cpus.iter().collect()))
        } else {
            Err(PinError::NotOffered { missing, offered })
        }
    }

    /// Binds the calling thread to the host CPU of vCPU `id`.
    ///
    /// # Errors
    /// What the host said.
    pub fn bind(&self, id: u32) -> io::Result<()> {
        let cpu = self.0[id as usize % self.0.len()] as usize;
        let mut set = no_cpus();
        // SAFETY: `set` is a valid set, and the number came from the host.
        unsafe { libc::CPU_SET(cpu, &mut set) };
        // SAFETY: `set` is a valid set of the size named; 0 is the calling thread.
        let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

fn offered() -> io::Result<CpuSet> {
    let mut set = no_cpus();
    // SAFETY: `set` is a valid place for a set of the size named; 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` is a valid set, which has room for every number asked for.
    let has = |cpu: &u32| unsafe { libc::CPU_ISSET(*cpu as usize, &set) };
    Ok((0..cpus::MOST).filter(has).collect())
}

fn no_cpus() -> libc::cpu_set_t {
    // SAFETY: a `cpu_set_t` is an array of integers, and all zeroes is the empty set.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cpus_there_are_can_be_had() {
        let offered = offered().unwrap();
        assert!(Pins::new(&offered).is_ok());
        assert!(matches!(
            Pins::new(&CpuSet::default()),
            Err(PinError::NotOffered { .. })
        ));
        let nowhere: CpuSet = (0..cpus::MOST).collect::<CpuSet>().without(&offered);
        if !nowhere.is_empty() {
            assert!(matches!(
                Pins::new(&nowhere),
                Err(PinError::NotOffered { .. })
            ));
        }
    }

    #[test]
    fn vcpus_take_the_cpus_in_turn() {
        let first = offered().unwrap().iter().next().unwrap();
        let pins = Pins::new(&CpuSet::from_iter([first])).unwrap();
        std::thread::spawn(move || {
            pins.bind(7).unwrap();
            assert_eq!(super::offered().unwrap(), CpuSet::from_iter([first]));
        })
        .join()
        .unwrap();
    }
}
