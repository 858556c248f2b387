//! The machine under the generic-ipi path: the platform, the CPUs that are online, and the lab in
//! which everything is counted and every broken property reported.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64 as GhostU64, Ordering as GhostOrdering};

use kit::counters::count;
use kit::lab::{CpuTally, Lab};
use kit::platform::{CpuId, Platform, Vector};
use kit::sync::atomic::Ordering;
use kit::sync::ghost;
use kit::sync::mask::{AtomicCpuMask, CpuMask, Targets};
use kit::sync::rcu::{GracePeriod, Rcu};
use kit::sync::waiting;

use crate::counters::CpuCounters;
use crate::oracle::Oracle;
use crate::rules::Rules;

/// The machine as every part of the path sees it.
#[derive(Debug)]
pub struct Machine<P> {
    /// The hardware.
    pub platform: P,
    /// Number of CPUs that can ever be online.
    pub cpus: usize,
    /// Counters, ledger and findings.
    pub lab: Lab,
    /// What is left out or refused on purpose.
    pub rules: Rules,
    /// Grace periods.
    pub rcu: Rcu,
    online: AtomicCpuMask,
    /// Requests for memory so far.
    requests: GhostU64,
}

impl<P: Platform> Machine<P> {
    /// A machine whose CPUs are all online.
    pub fn new(platform: P, cpus: usize, lab: Lab) -> Self {
        let online = AtomicCpuMask::none(cpus);
        online.store(&CpuMask::all(cpus), Ordering::Relaxed);
        Self {
            platform,
            cpus,
            lab,
            rules: Rules::DEFAULT,
            rcu: Rcu::new(cpus),
            online,
            requests: GhostU64::new(0),
        }
    }

    /// The CPU this code runs on.
    pub fn this_cpu(&self) -> CpuId {
        self.platform.this_cpu()
    }

    /// The tally of the CPU this code runs on.
    pub fn tally(&self) -> &CpuTally {
        self.lab.tally(self.this_cpu())
    }

    /// The counters of the CPU this code runs on.
    pub fn counters(&self) -> &CpuCounters {
        self.lab.own_counters(self.this_cpu())
    }

    /// Tells `target` of calls that wait for it, by `vector`. `call` is the one that has
    /// it told.
    pub fn tell(&self, target: CpuId, vector: Vector, call: u64) {
        let sent = self.platform.announce(target, vector, call);
        count(&self.counters().call_ipis_sent, sent);
    }

    /// As [`Machine::tell`], to every CPU of `targets`, of which there may be none.
    pub fn tell_all(&self, targets: &CpuMask, vector: Vector, call: u64) {
        let sent = self.platform.announce_all(targets, vector, call);
        count(&self.counters().call_ipis_sent, sent);
    }

    /// Whether `cpu` exists and is online.
    pub fn is_online(&self, cpu: CpuId) -> bool {
        cpu < self.cpus && self.online.contains(cpu, Ordering::Relaxed)
    }

    /// The CPUs that are online. A moment later it may be others.
    pub fn online(&self) -> CpuMask {
        self.online.load(self.cpus)
    }

    /// Notes that `cpu` is online, or no longer is. If the CPU runs, only it itself may, with
    /// interrupts off.
    pub fn set_online(&self, cpu: CpuId, online: bool) {
        if online {
            self.online.insert(cpu, Ordering::Release);
        } else {
            self.online.remove(cpu, Ordering::Release);
        }
    }

    /// The CPUs of `mask`, as it is now, that are online, without this one: `(mask & online) -
    /// self`.
    pub fn others_online(&self, mask: &dyn Targets) -> CpuMask {
        let mut targets = mask.load(self.cpus);
        targets.intersect(&self.online);
        targets.remove(self.this_cpu());
        targets
    }

    /// Whether the allocator may grant the next request, which is counted.
    pub fn grants_memory(&self) -> bool {
        ghost::changes(&self.requests);
        let number = self.requests.fetch_add(1, GhostOrdering::Relaxed);
        let refused = (self.rules.alloc_fail).is_some_and(|rate| rate.refuses(number));
        let counters = self.counters();
        count(&counters.allocations, 1);
        count(&counters.refused, refused.into());
        !refused
    }

    /// Waits until every CPU has passed a quiescent state after this call began
    /// (`synchronize_rcu_expedited`). CPUs that sleep or make no calls pass one by the interrupt
    /// that they are sent.
    pub fn synchronize(&self) {
        let period = self.rcu.grace_period(&self.platform, || self.online());
        // The grace period under way may have begun too early.
        for number in [period.number() - 1, period.number()] {
            let told = Cell::new(CpuMask::none(self.cpus));
            self.spin_until(|| {
                self.quiescent();
                let is_over = self.rcu.is_over(GracePeriod::from_number(number));
                if !is_over {
                    self.force_quiescent_states(&told);
                }
                is_over
            });
        }
    }

    /// Interrupts the CPUs that hold up a grace period, except for those in `told`, and adds them
    /// to `told`. It is called again and again while a CPU waits: which CPUs the next grace period
    /// waits for is known only after the previous one has ended.
    fn force_quiescent_states(&self, told: &Cell<CpuMask>) {
        let mut all = told.get();
        let mut others = self.others_online(&self.rcu.owing(self.cpus));
        all.iter().for_each(|cpu| others.remove(cpu));
        if !others.is_empty() {
            self.platform.send_ipi_mask(&others, Vector::WAKE);
            others.iter().for_each(|cpu| all.insert(cpu));
            told.set(all);
        }
    }

    /// This CPU passes a quiescent state, unless it is in [`Rcu::read`].
    pub fn quiescent(&self) {
        self.rcu.quiescent(&self.platform, || self.online());
    }

    /// Waits, with `relax`, until `done`; every turn is counted as a spin. A wait far longer than
    /// any between CPUs that run is also reported to the host.
    pub fn spin_until(&self, done: impl Fn() -> bool) {
        waiting::spin_until(&self.platform, &self.lab, done);
    }

    /// Reports that `oracle` does not hold for `call` (0 if unknown) on this CPU.
    pub fn report(&self, oracle: Oracle, call: u64, seen: u64) {
        let tsc = self.platform.timestamp();
        self.lab
            .report(oracle as u32, self.this_cpu(), call, tsc, seen);
    }
}
