//! What a debugger that is attached asks of a machine: to stop it as a whole, to look at its vCPUs and
//! change them, and to let them go on. The vCPU threads tell here which of them has stopped for it. What
//! a debugger says and is told is not known here.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Operator, OperatorError};
use crate::machine::breakpoints::HardwarePoint;
use crate::machine::debugged::Debugged;
use crate::machine::exit::DebuggerStop;
use crate::machine::lifecycle::State;
use crate::machine::stop_instruction::StopInstruction;
use crate::stats::marks::Actor;

/// What there is to know of a debugger that may be attached.
#[derive(Debug)]
pub(super) struct Debugging {
    /// The vCPUs that have stopped for it and of which it has not taken note.
    stopped: Mutex<VecDeque<(u32, DebuggerStop)>>,
    /// Readable when one has, or the machine is over.
    news: EventFd,
    /// The instructions that are replaced.
    patches: Mutex<Vec<StopInstruction>>,
    /// Whether it has the machine stopped, or is about to.
    stops: AtomicBool,
    /// Whether one is attached, or the machine waits for one.
    attached: AtomicBool,
    /// The exit status, if the guest has ended by itself.
    ended: OnceLock<Option<u8>>,
}

impl Debugging {
    /// Nobody is attached.
    ///
    /// # Errors
    /// The host has no eventfd.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            stopped: Mutex::default(),
            news: EventFd::new(EFD_NONBLOCK)?,
            patches: Mutex::default(),
            stops: AtomicBool::new(false),
            attached: AtomicBool::new(false),
            ended: OnceLock::new(),
        })
    }

    /// Handles that a vCPU has stopped, on that vCPU's thread.
    pub fn stopped(&self, cpu: u32, stop: DebuggerStop) {
        self.queue().push_back((cpu, stop));
        self.wake();
    }

    /// Wakes the debugger, so that it sees what is new.
    pub fn wake(&self) {
        // Fails only if it is readable already.
        let _ = self.news.write(1);
    }

    /// Whether the instruction at `address` is replaced.
    pub fn is_patched(&self, address: u64) -> bool {
        self.patches().iter().any(|it| it.address == address)
    }

    /// Whether one is attached, or the machine waits for one.
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Relaxed)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<(u32, DebuggerStop)>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn patches(&self) -> MutexGuard<'_, Vec<StopInstruction>> {
        self.patches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Operator {
    /// Readable when a vCPU has stopped for the debugger, or the machine is over.
    pub(in crate::control) fn debugger_news(&self) -> &EventFd {
        &self.debugging.news
    }

    /// The vCPUs that have stopped for the debugger since the last time, in their order.
    pub(in crate::control) fn debugger_stops(&self) -> VecDeque<(u32, DebuggerStop)> {
        // Read first, so that what comes in between makes it readable again.
        let _ = self.debugging.news.read();
        std::mem::take(&mut self.debugging.queue())
    }

    /// Notes the exit status that the debugger is told; `None` if the guest did not end by itself.
    pub(in crate::control) fn note_end_for_debugger(&self, status: Option<u8>) {
        let _ = self.debugging.ended.set(status);
    }

    /// The exit status of the guest, once the machine is over; the inner is `None` if the guest did not
    /// end by itself.
    pub(in crate::control) fn debugger_end(&self) -> Option<Option<u8>> {
        self.over()
            .map(|_| self.debugging.ended.get().copied().flatten())
    }

    /// Stops all vCPUs for the debugger.
    ///
    /// # Errors
    /// A vCPU does not leave the guest, or the machine is over.
    pub(in crate::control) fn stop_for_debugger(&self) -> Result<(), OperatorError> {
        self.debugging.attached.store(true, Ordering::Relaxed);
        if !self.debugging.stops.swap(true, Ordering::Relaxed) {
            self.recorder
                .say(Actor::Debugger, || "stops all CPUs".to_owned());
        }
        self.with_threads(|threads| Ok(threads.stop_for_debugger()?))
    }

    /// Lets a vCPU go on, as far as the debugger is concerned.
    ///
    /// # Errors
    /// The machine is over.
    pub(in crate::control) fn go_on_from_debugger(
        &self,
        cpus: impl IntoIterator<Item = u32>,
    ) -> Result<(), OperatorError> {
        self.debugging.stops.store(false, Ordering::Relaxed);
        self.recorder
            .say(Actor::Debugger, || "lets CPUs go on".to_owned());
        self.with_threads(|threads| {
            for cpu in cpus {
                threads.go_on_from_debugger(cpu)?;
            }
            Ok(())
        })
    }

    /// The debugger is no longer attached.
    pub(in crate::control) fn debugger_leaves(&self) {
        self.debugging.attached.store(false, Ordering::Relaxed);
    }

    /// Runs `body` on a vCPU, which must be out of the guest.
    ///
    /// # Errors
    /// It is in the guest, or has exited.
    pub(in crate::control) fn debug<T>(
        &self,
        cpu: u32,
        body: impl FnOnce(&Debugged<'_>) -> T,
    ) -> Result<T, OperatorError> {
        self.with_threads(|threads| Ok(threads.debug(cpu, body)?))
    }

    /// Has the processor stop vCPUs for the debugger at these points, and at no others.
    ///
    /// # Errors
    /// If KVM refuses.
    pub(in crate::control) fn set_debugger_points(
        &self,
        points: &[HardwarePoint],
    ) -> Result<(), OperatorError> {
        self.with_threads(|threads| Ok(threads.set_debugger_points(points)?))
    }

    /// Has a vCPU take one step for the debugger when it goes on, or no longer.
    ///
    /// # Errors
    /// If KVM refuses.
    pub(in crate::control) fn set_debugger_step(
        &self,
        cpu: u32,
        on: bool,
    ) -> Result<(), OperatorError> {
        self.with_threads(|threads| Ok(threads.set_debugger_step(cpu, on)?))
    }

    /// Replaces the instruction at `address`, as `cpu` addresses it, by one that stops vCPUs for the
    /// debugger.
    ///
    /// # Errors
    /// If it cannot be replaced.
    pub(in crate::control) fn patch(&self, cpu: u32, address: u64) -> Result<(), OperatorError> {
        let mut patches = self.debugging.patches();
        let put = self.debug(cpu, |it| it.put_stop(address, &patches, &self.symbols))?;
        let stop = put.map_err(|source| OperatorError::Look(cpu, source))??;
        patches.push(stop);
        Ok(())
    }

    /// Puts back the instruction at `address`. Returns whether it was replaced.
    ///
    /// # Errors
    /// The machine is over.
    pub(in crate::control) fn unpatch(&self, address: u64) -> Result<bool, OperatorError> {
        self.with_threads(|threads| {
            let mut patches = self.debugging.patches();
            let place = patches.iter().position(|it| it.address == address);
            let Some(place) = place else { return Ok(false) };
            patches.remove(place).remove(threads.memory());
            Ok(true)
        })
    }

    /// Shows `bytes`, which were read at `start` in guest memory, without what was patched.
    pub(in crate::control) fn hide_patches(&self, start: u64, bytes: &mut [u8]) {
        for patch in self.debugging.patches().iter() {
            patch.hide(start, bytes);
        }
    }

    /// Takes note that `bytes` were written at `start` in guest memory, and keeps what is patched there so.
    pub(in crate::control) fn keep_patches(
        &self,
        start: u64,
        bytes: &[u8],
        memory: &GuestMemoryMmap,
    ) {
        for patch in self.debugging.patches().iter_mut() {
            patch.keep(start, bytes, memory);
        }
    }

    /// The vCPUs that have not exited.
    pub(in crate::control) fn debuggable(&self) -> Vec<u32> {
        let is_there = |cpu: &u32| {
            self.state(*cpu)
                .is_ok_and(|state| !matches!(state, State::Exited(_)))
        };
        (0..self.cpus()).filter(is_there).collect()
    }
}
