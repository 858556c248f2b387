//! The words that C files take on the command line (`LAB_WORD`, `LAB_WORKLOADS` and those of
//! workloads): which there are stands in the table, and which value was chosen in a variable of the
//! C file.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};

use kit::options::{
    MachineOptions, Options, OptionsError, choose, cpus_at_boot, milliseconds, number,
};

use crate::table::{Chosen, Entry, Unit, Work, Workloads, entries};

/// The key that a guest has whose CPUs can leave and come.
const MAXCPUS: &str = "maxcpus";

/// The words of the image's C files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words {
    /// `maxcpus=`: how many CPUs are started at boot, if not all.
    at_boot: Option<u32>,
}

/// The key by which the command line chooses a workload, in a guest that has any.
const WORKLOAD: &str = "workload";

/// The keys whose values have names, where the number of the value goes, and the workloads in which
/// it decides something.
fn words() -> impl Iterator<Item = (&'static str, Chosen, Workloads)> {
    entries().filter_map(|entry| match entry {
        Entry::Word(key, chosen, of) => Some((key, chosen, of)),
        _ => None,
    })
}

/// The values of `key` in the order of their numbers: name, number, and whether it is broken on
/// purpose.
fn values(key: &str) -> Vec<(&'static str, u32, bool)> {
    let mut values: Vec<_> = entries()
        .filter_map(|entry| match entry {
            Entry::Value(of, name, number, broken) if of == key => Some((name, number, broken)),
            _ => None,
        })
        .collect();
    values.sort_by_key(|(_, number, _)| *number);
    values
}

/// The value of each key that was chosen: key, name, and whether it is broken on purpose.
fn chosen() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    let workload = workload();
    words().filter_map(move |(key, chosen, of)| {
        if key != WORKLOAD && workload.is_some_and(|number| !of.has(number)) {
            return None;
        }
        let number = chosen.get();
        let mut values = values(key).into_iter();
        let (name, _, broken) = values.find(|(_, of, _)| *of == number)?;
        Some((key, name, broken))
    })
}

/// The number of the workload that was chosen, in a guest that has any.
fn workload() -> Option<u32> {
    let mut words = words();
    words.find_map(|(key, chosen, _)| (key == WORKLOAD).then(|| chosen.get()))
}

/// What each CPU does by itself in the workload that was chosen. `None` if it does what it is told.
pub fn work() -> Option<Work> {
    let chosen = workload()?;
    entries().find_map(|entry| match entry {
        Entry::Workload(number, work) if number == chosen => Some(work),
        _ => None,
    })
}

impl Options for Words {
    fn keys() -> &'static [&'static str] {
        static KEYS: AtomicPtr<Vec<&'static str>> = AtomicPtr::new(core::ptr::null_mut());
        // SAFETY: null, or what the first CPU has leaked below.
        if let Some(keys) = unsafe { KEYS.load(Ordering::Acquire).as_ref() } {
            return keys;
        }
        let keys = entries().filter_map(|entry| match entry {
            Entry::Word(key, ..) | Entry::Number(key, ..) => Some(key),
            Entry::Hotplug(_) => Some(MAXCPUS),
            _ => None,
        });
        let keys = Box::leak(Box::new(keys.collect::<Vec<_>>()));
        KEYS.store(keys, Ordering::Release);
        keys
    }

    fn set<'a>(&mut self, key: &'a str, value: &'a str) -> Result<(), OptionsError<'a>> {
        if key == MAXCPUS {
            self.at_boot = Some(cpus_at_boot(key, value)?);
            return Ok(());
        }
        for entry in entries() {
            match entry {
                Entry::Word(of, chosen, _) if of == key => {
                    let values = values(key).into_iter();
                    let values = values.map(|(name, number, _)| (name, number));
                    chosen.set(choose(key, value, values)?);
                }
                Entry::Number(of, chosen, unit, _) if of == key => chosen.set(match unit {
                    Unit::One => number(key, value)?,
                    Unit::Millisecond => milliseconds(key, value)?,
                }),
                _ => {}
            }
        }
        Ok(())
    }

    fn check(&self, machine: &MachineOptions) -> Result<(), OptionsError<'static>> {
        match (machine.lab, work()) {
            (None, None) => Err(OptionsError::NobodyTells),
            _ => Ok(()),
        }
    }

    fn cpus_at_boot(&self, cpus: usize) -> usize {
        self.at_boot.map_or(cpus, |some| cpus.min(some as usize))
    }

    /// Chooses what was not said as well: this is the first that knows the CPUs.
    fn check_cpus(&self, cpus: usize) -> Result<(), String> {
        for entry in entries() {
            if let Entry::Defaults(defaults) = entry {
                defaults.choose(cpus)?;
            }
        }
        Ok(())
    }

    fn write_words(&self, cpus: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at_boot.is_some() {
            write!(f, " {MAXCPUS}={}", self.cpus_at_boot(cpus))?;
        }
        chosen().try_for_each(|(key, name, _)| write!(f, " {key}={name}"))?;
        let Some(workload) = workload() else {
            return Ok(());
        };
        for entry in entries() {
            if let Entry::Number(key, chosen, unit, of) = entry
                && let Some(number) = chosen.get()
                && of.has(workload)
            {
                let unit = match unit {
                    Unit::One => "",
                    Unit::Millisecond => "ms",
                };
                write!(f, " {key}={number}{unit}")?;
            }
        }
        Ok(())
    }

    fn broken(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        chosen()
            .filter(|(.., broken)| *broken)
            .map(|(key, name, _)| (key, name))
    }
}
