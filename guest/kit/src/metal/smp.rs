//! Starts the other CPUs: INIT, a start-up IPI, and a second one for those that did not answer (SDM
//! Vol. 3A 10.4.4). At boot they start all at once, and each finds its own area by its APIC id. Does
//! not decide which are started.

use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;
use core::slice;

use crate::platform::CpuId;
use shared::ports::{Delivery, Dispatch};
use x86_64::instructions::{hlt, interrupts};

use super::apic::{self, Command, Destination};
use super::boot::{TRAMPOLINE, trampoline_end, trampoline_start};
use super::clock::{self, Deadline};
use super::cpu::{Area, Cpu};
use super::paging;
use super::physical::PAGE;
use super::wire::hand_over;

/// Time between INIT and start-up IPI. The manual's 10 ms are for processors of the last century,
/// and Linux does not wait at all; but a monitor's thread needs a moment to notice.
const AFTER_INIT_MICROS: u64 = 200;
/// Time after which a CPU that has not answered gets a second start-up IPI.
const FIRST_ANSWER_MICROS: u64 = 100_000;

/// Waits until all of some CPUs are online, for at most so many microseconds, and says whether they
/// are.
pub type Wait<'a> = &'a mut dyn FnMut(u64, &dyn Fn() -> bool) -> bool;

/// How CPUs are started.
#[derive(Clone, Copy, Debug)]
pub struct Starting {
    /// Whether INIT and start-up IPIs go through the monitor, like all others.
    pub by_wire: bool,
    /// Time after the second start-up IPI after which a CPU that has not answered is given up.
    pub limit_micros: u64,
}

/// CPUs that never came up.
#[derive(Debug)]
pub struct Missing {
    cpus: Vec<Started>,
    limit_micros: u64,
}

/// A CPU, and the id of its APIC.
type Started = (&'static Cpu, u32);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.cpus.len();
        write!(f, "{count} of the CPUs that the MADT lists did not start:")?;
        for (cpu, id) in &self.cpus {
            write!(f, " {} (APIC id {id})", cpu.index)?;
        }
        let limit = self.limit_micros / 1000;
        write!(f, "; no answer within {limit} ms of a second start-up IPI")
    }
}

/// Prepares every CPU of `apic_ids` but the first, which is the caller. Starts those of them whose
/// index is below `at_boot`, and waits until they are online. The trampoline's page must be RAM.
///
/// # Errors
/// Names those that do not come up in time.
pub fn start_others(apic_ids: &[u32], at_boot: usize, starting: Starting) -> Result<(), Missing> {
    let others = apic_ids.iter().enumerate().skip(1);
    let cpus: Vec<Started> = others
        .map(|(index, id)| (Area::allocate(index, *id), *id))
        .collect();
    for (cpu, _) in &cpus {
        cpu.guard_stacks();
    }
    paging::flush();
    install_trampoline();

    let hz = clock::frequency();
    let mut wait =
        |micros, done: &dyn Fn() -> bool| Deadline::after_micros(micros, hz).spin_until(done);
    starting.start(&cpus[..at_boot.saturating_sub(1)], &mut wait)
}

/// Starts `cpu`, which went offline by [`park`] or has never run, and waits by `wait` until it is
/// online. Returns whether it was before.
///
/// # Errors
/// If it does not come up in time.
pub fn start_one(
    cpu: CpuId,
    apic_id: u32,
    starting: Starting,
    wait: Wait<'_>,
) -> Result<bool, Missing> {
    // SAFETY: the CPU is offline: it has never run, or halts with interrupts off, or is about to,
    // and does not use its area before it starts. Only the guest's hotplug calls this, for one CPU
    // at a time, so no other CPU is about to start it.
    let cpu = unsafe { Area::renew(cpu, apic_id) };
    starting.start(&[(cpu, apic_id)], wait)?;
    Ok(cpu.was_online())
}

/// Where a CPU that went offline stays: only INIT wakes it.
pub fn park() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

impl Starting {
    /// Starts all of `cpus` at once.
    fn start(self, cpus: &[Started], wait: Wait<'_>) -> Result<(), Missing> {
        let start_up = Command::StartUp((TRAMPOLINE / PAGE) as u8);
        let is_online = |(cpu, _): &Started| cpu.is_online();
        for (_, id) in cpus {
            self.send(Command::Init, *id);
        }
        wait(AFTER_INIT_MICROS, &|| false);
        for (_, id) in cpus {
            self.send(start_up, *id);
        }

        // Those before it are online.
        let next = Cell::new(0);
        let all_online = || {
            while cpus.get(next.get()).is_some_and(is_online) {
                next.set(next.get() + 1);
            }
            next.get() == cpus.len()
        };
        if wait(FIRST_ANSWER_MICROS, &all_online) {
            return Ok(());
        }
        for (_, id) in cpus.iter().filter(|cpu| !is_online(cpu)) {
            self.send(start_up, *id);
        }
        if wait(self.limit_micros, &all_online) {
            return Ok(());
        }
        // One that comes up from here on finds that nobody waits for it.
        cpus.iter().for_each(|(cpu, _)| cpu.give_up());
        let missing: Vec<_> = cpus.iter().copied().filter(|cpu| !is_online(cpu)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Missing {
            cpus: missing,
            limit_micros: self.limit_micros,
        })
    }

    fn send(self, command: Command, apic_id: u32) {
        if !self.by_wire {
            return apic::send(command, Destination::Physical(apic_id), true);
        }
        let (delivery, vector) = match command {
            Command::Fixed(vector) => (Delivery::Fixed, vector),
            Command::Init => (Delivery::Init, 0),
            Command::StartUp(page) => (Delivery::StartUp, page),
        };
        let dispatch = Dispatch {
            target: apic_id,
            vector,
            delivery,
        };
        // As `apic::send` does it. To a search the port stands for the ICR.
        #[cfg(feature = "explore")]
        if apic::is_x2apic() {
            crate::sync::stops::before_drain();
        }
        hand_over(dispatch.into(), 0);
    }
}

fn install_trampoline() {
    let start = &raw const trampoline_start;
    let len = &raw const trampoline_end as usize - start as usize;
    // SAFETY: the two symbols bound the trampoline as linked.
    let code = unsafe { slice::from_raw_parts(start, len) };
    // SAFETY: the page is RAM, by the caller's promise, and nothing in the guest uses it.
    let page = unsafe { slice::from_raw_parts_mut(TRAMPOLINE as *mut u8, len) };
    page.copy_from_slice(code);
}
