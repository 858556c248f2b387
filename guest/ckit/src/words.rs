//! The words that C files take on the command line (`LAB_WORD`): which there are stands in the
//! table, and which value was chosen in a variable of the C file.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};

use kit::options::{MachineOptions, Options, OptionsError, choose};

use crate::table::{Chosen, Entry, entries};

/// The key that a guest has whose CPUs can leave and come.
const MAXCPUS: &str = "maxcpus";

/// The words of the image's C files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Words {
    /// `maxcpus=`: how many CPUs are started at boot, if not all.
    at_boot: Option<u32>,
}

/// The keys, and where the value of each goes.
fn words() -> impl Iterator<Item = (&'static str, Chosen)> {
    entries().filter_map(|entry| match entry {
        Entry::Word(key, chosen) => Some((key, chosen)),
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
    words().filter_map(|(key, chosen)| {
        let number = chosen.get();
        let mut values = values(key).into_iter();
        let (name, _, broken) = values.find(|(_, of, _)| *of == number)?;
        Some((key, name, broken))
    })
}

impl Options for Words {
    fn keys() -> &'static [&'static str] {
        static KEYS: AtomicPtr<Vec<&'static str>> = AtomicPtr::new(core::ptr::null_mut());
        // SAFETY: null, or what the first CPU has leaked below.
        if let Some(keys) = unsafe { KEYS.load(Ordering::Acquire).as_ref() } {
            return keys;
        }
        let maxcpus = entries().filter_map(|entry| match entry {
            Entry::Hotplug(_) => Some(MAXCPUS),
            _ => None,
        });
        let keys: Vec<_> = words().map(|(key, _)| key).chain(maxcpus).collect();
        let keys = Box::leak(Box::new(keys));
        KEYS.store(keys, Ordering::Release);
        keys
    }

    fn set<'a>(&mut self, key: &'a str, value: &'a str) -> Result<(), OptionsError<'a>> {
        if key == MAXCPUS {
            let some = value.parse();
            let some = some.map_err(|_| OptionsError::NotANumber(key, value))?;
            if some == 0 {
                let first = "leaves no CPU to boot";
                return Err(OptionsError::Wrong(key, value, first));
            }
            self.at_boot = Some(some);
            return Ok(());
        }
        let values = values(key).into_iter();
        let number = choose(key, value, values.map(|(name, number, _)| (name, number)))?;
        words()
            .filter(|(of, _)| *of == key)
            .for_each(|(_, chosen)| chosen.set(number));
        Ok(())
    }

    fn check(&self, machine: &MachineOptions) -> Result<(), OptionsError<'static>> {
        match machine.lab {
            Some(_) => Ok(()),
            None => Err(OptionsError::NobodyTells),
        }
    }

    fn cpus_at_boot(&self, cpus: usize) -> usize {
        self.at_boot.map_or(cpus, |some| cpus.min(some as usize))
    }

    fn write_words(&self, cpus: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at_boot.is_some() {
            write!(f, " {MAXCPUS}={}", self.cpus_at_boot(cpus))?;
        }
        chosen().try_for_each(|(key, name, _)| write!(f, " {key}={name}"))
    }

    fn broken(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        chosen()
            .filter(|(.., broken)| *broken)
            .map(|(key, name, _)| (key, name))
    }
}
