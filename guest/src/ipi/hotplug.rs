//! CPUs that leave and come while calls are made (Linux 2.6.30, `kernel/cpu.c`).
//!
//! A CPU leaves at a point at which its own task is between two operations. No other CPU may be in
//! the middle of one then: a caller that has found the CPU online would still interrupt it, and a
//! walker could still stand on its element, whose memory is freed with it. So all CPUs are brought
//! to such a point, and kept there with interrupts off while the CPU leaves
//! ([`stop`](super::stop)).
//!
//! What is specified, whatever the design of the queue:
//!
//! * A call made to a CPU before it left runs there before it has left.
//! * A call that CPU made before it left runs on its other targets as if it had stayed.
//! * A call made to it afterwards is refused ([`Offline`](super::Offline)), or made without it.
//!
//! `hotplug=no-stop` leaves the stop out. **It is broken on purpose**: all three can fail, and the
//! mask of the CPU that left is freed while others still read it.
//!
//! A CPU comes by INIT and start-up IPI, after everything that it needs was prepared. It marks itself
//! online when it can take interrupts, as its last step before it enables them: a call made to it
//! before is refused, or made without it. With `hotplug=online-first` it is marked online before it is
//! started. **That is broken on purpose**: the interrupt of a call that is made too early is lost, and
//! the call with it.

use kit::counters::count;
use kit::idle::idle_until;
use kit::platform::{CpuId, Platform, Vector};
use kit::probe;
use kit::specimen::Next;
use kit::sync::irq::irqs_off;
use kit::sync::mask::CpuMask;

pub use super::hotplug_state::HotplugError;
use super::memory::NoMemory;
use super::notifier::{HotplugEvent, tell};
use super::path::{Functions, Ipi};
use crate::rules::HotplugMode;

impl<P: Platform, F: Functions<P>> Ipi<P, F> {
    /// Takes `cpu` offline (`cpu_down`), and returns when it is. From task context.
    ///
    /// # Errors
    /// [`HotplugError::Invalid`] for CPU 0, this CPU, or one that is not online;
    /// [`HotplugError::Busy`] while another CPU leaves or comes.
    pub fn cpu_down(&self, cpu: CpuId) -> Result<(), HotplugError> {
        let machine = &self.machine;
        self.hotplug.exclusively(|| {
            if cpu == 0 || cpu == machine.this_cpu() || !machine.is_online(cpu) {
                return Err(HotplugError::Invalid);
            }
            match machine.rules.hotplug {
                HotplugMode::Stop | HotplugMode::Keep | HotplugMode::OnlineFirst => {
                    let online = machine.online();
                    self.stop.begin(cpu, &online);
                    self.wake(&machine.others_online(&online));
                    let next = self.take_part_in_stop(Some(&online));
                    debug_assert_eq!(next, Next::Stay, "no CPU takes itself down");
                }
                HotplugMode::NoStop => {
                    self.hotplug.ask_to_leave(cpu);
                    self.wake(&CpuMask::only(cpu, machine.cpus));
                    machine.spin_until(|| self.hotplug.nobody_leaves());
                }
            }
            probe!(machine.platform, "hotplug.dead");
            self.notify(HotplugEvent::Dead, cpu)?;
            probe!(machine.platform, "hotplug.freed");
            count(&machine.counters().cpus_taken_down, 1);
            Ok(())
        })
    }

    /// Brings `cpu` online (`cpu_up`), which has left or has never run, and returns when it is. From
    /// task context.
    ///
    /// # Errors
    /// [`HotplugError::Invalid`] if there is no such CPU or it is online; [`HotplugError::Busy`]
    /// while another CPU leaves or comes; [`HotplugError::Vetoed`] if there is no memory for it;
    /// [`HotplugError::NotStarted`] if it does not come.
    pub fn cpu_up(&self, cpu: CpuId) -> Result<(), HotplugError> {
        let machine = &self.machine;
        self.hotplug.exclusively(|| {
            if cpu >= machine.cpus || machine.is_online(cpu) {
                return Err(HotplugError::Invalid);
            }
            self.notify(HotplugEvent::UpPrepare, cpu)?;
            probe!(machine.platform, "hotplug.prepared");
            if machine.rules.hotplug == HotplugMode::OnlineFirst {
                machine.set_online(cpu, true);
            }
            if machine.platform.start_cpu(cpu).is_err() {
                self.notify(HotplugEvent::UpCanceled, cpu)?;
                return Err(HotplugError::NotStarted);
            }
            machine.spin_until(|| machine.is_online(cpu));
            probe!(machine.platform, "hotplug.online");
            self.notify(HotplugEvent::Online, cpu)?;
            count(&machine.counters().cpus_brought_up, 1);
            Ok(())
        })
    }

    /// Of the CPUs only the first `at_boot` start at boot. The others begin as if they had left.
    /// Before any CPU runs.
    pub fn begin_with(&self, at_boot: usize) {
        for cpu in at_boot..self.machine.cpus {
            self.machine.set_online(cpu, false);
            let veto = self.notify(HotplugEvent::Dead, cpu);
            debug_assert_eq!(veto, Ok(()), "a CPU that has left cannot be vetoed");
        }
    }

    /// This CPU runs, and takes calls from now on. Each CPU calls this when it has started.
    pub fn cpu_starting(&self) {
        let me = self.machine.this_cpu();
        if !self.machine.is_online(me) {
            irqs_off(&self.machine.platform, || {
                self.machine.set_online(me, true);
            });
        }
    }

    /// The point between two operations of a CPU's task (`cond_resched`): here the CPU passes a
    /// quiescent state, takes part in a stop, and goes offline if it was asked to.
    pub fn cond_resched(&self) -> Next {
        self.machine.quiescent();
        if self.stop.wants(self.machine.this_cpu()) {
            return self.take_part_in_stop(None);
        }
        if self.hotplug.is_to_leave(self.machine.this_cpu()) {
            self.machine.platform.irqs_disable();
            self.die();
            self.hotplug.has_left();
            return Next::Leave;
        }
        Next::Stay
    }

    /// Sleeps until `done`, and does meanwhile what [`Ipi::cond_resched`] does. The CPU that makes
    /// `done` true must wake this one with [`Ipi::wake`].
    pub fn idle_until(&self, done: impl Fn() -> bool) -> Next {
        idle_until(
            &self.machine.platform,
            done,
            || self.cond_resched(),
            || self.is_wanted(),
        )
    }

    /// Whether other CPUs wait for this one to pass [`Ipi::cond_resched`], so that it must not
    /// sleep.
    pub fn is_wanted(&self) -> bool {
        let me = self.machine.this_cpu();
        self.stop.wants(me) || self.hotplug.is_to_leave(me)
    }

    /// Wakes the CPUs of `targets` from [`Ipi::idle_until`].
    pub fn wake(&self, targets: &CpuMask) {
        self.machine.platform.send_ipi_mask(targets, Vector::WAKE);
    }

    /// Goes through the stop under way with all others; the CPU that has asked for it with all
    /// `members`. The CPU that leaves comes back offline, with interrupts off.
    fn take_part_in_stop(&self, members: Option<&CpuMask>) -> Next {
        let (stop, machine) = (&self.stop, &self.machine);
        stop.take_part(machine, members, || self.serve_pending(), || self.die())
    }

    /// The last step of a CPU that goes offline (`take_cpu_down`), interrupts off: it marks itself
    /// offline, and runs the calls that still wait for it, since no interrupt will have it do so
    /// later (Linux 8d056c48e486).
    fn die(&self) {
        let machine = &self.machine;
        let me = machine.this_cpu();
        probe!(machine.platform, "hotplug.dying");
        machine.set_online(me, false);
        probe!(machine.platform, "hotplug.offline");
        self.serve_pending();
        let veto = self.notify(HotplugEvent::Dying, me);
        debug_assert_eq!(veto, Ok(()), "a CPU that goes cannot be vetoed");
    }

    /// Runs the calls that wait for this CPU, interrupts off, whether or not their interrupts have
    /// arrived.
    fn serve_pending(&self) {
        let run = |call| self.run(call);
        while self.singles.handle(&self.machine, &run) + self.many.handle(&self.machine, &run) != 0
        {
        }
    }

    /// Tells the notifier chain.
    fn notify(&self, event: HotplugEvent, cpu: CpuId) -> Result<(), NoMemory> {
        let machine = &self.machine;
        tell(&[&machine.rcu, &*self.many], machine, event, cpu)
    }
}
