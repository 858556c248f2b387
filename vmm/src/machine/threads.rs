//! The threads of the vCPUs, one each, and the means to control the machine as a whole: run it,
//! suspend it, stop it, and get the vCPUs back. Single vCPUs are paused in [`super::pausing`].
//! Decides nothing; what happens on a vCPU goes to the controlling thread as an [`Event`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use shared::ports::Doorbell;
use tracing::{debug, trace, warn};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{Killable, unblock_signal};

use super::address_space::AddressSpace;
use super::devices::{Devices, Effect};
use super::exit::{Death, Exit, Stop};
use super::function_entry;
use super::journal::Journal;
use super::kick::{self, ImmediateExit};
use super::lifecycle::{
    CONFIRMATION, Change, Exited, Holder, Lifecycle, Request, Runner, Stall, State, Step,
};
use super::limits::{self, LimitError};
use super::message::{HeldBy, Message, OnMessage, Reaction};
use super::pause_latency::PauseLatencies;
use super::pin::Pins;
use super::stop_instruction;
use super::vcpu::Vcpu;
use crate::confinement::{self, ThreadKind};

/// The stack of a vCPU's thread, in bytes.
const STACK: usize = 256 << 10;

/// Why the threads cannot be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ThreadsError {
    /// No memory.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// No eventfd.
    #[error("cannot prepare the vCPU threads")]
    Prepare(#[source] io::Error),
    /// No signal is free to interrupt them.
    #[error(transparent)]
    Signal(#[from] kick::SignalError),
    /// No thread.
    #[error("cannot start the thread of vCPU {id}; raise the limit on threads (ulimit -u)")]
    Spawn {
        /// The vCPU.
        id: u32,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A vCPU did not leave the guest in time.
    #[error(
        "vCPU {0} did not leave the guest within {limit} s of being told to; this host's KVM is \
         stuck",
        limit = CONFIRMATION.as_secs()
    )]
    Stuck(u32),
}

/// How a vCPU ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It wrote this to the exit port.
    GuestExit(u32),
    /// It turned the machine off.
    PowerOff,
    /// It reset the machine.
    Reset,
    /// The guest cannot go on.
    Dead(Death),
    /// The thread that ran it panicked, which is a bug of the VMM.
    Panicked,
}

/// What happened to a vCPU, as its thread reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It ended by itself.
    Ended {
        /// The vCPU.
        vcpu: u32,
        /// How.
        end: End,
    },
    /// It has confirmed that it is held, or runs again. [`VcpuThreads::state`] says its state,
    /// which may have changed once more.
    Changed {
        /// The vCPU.
        vcpu: u32,
        /// What it is held by, if it has confirmed that it is held after it stopped by itself.
        held_by: Option<HeldBy>,
    },
}

/// A vCPU. Its own thread locks it while it is in the guest; other threads may lock it while it is
/// held.
pub(super) type SharedVcpu = Arc<Mutex<Vcpu>>;

/// Events on their way to the controlling thread.
#[derive(Debug)]
pub struct Events {
    queue: Mutex<VecDeque<Event>>,
    pending: EventFd,
}

impl Events {
    fn new() -> io::Result<Self> {
        Ok(Self {
            queue: Mutex::default(),
            pending: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// The events not yet taken, in their order.
    pub fn take_all(&self) -> VecDeque<Event> {
        // The eventfd is read first, so that an event that is put in between makes it readable
        // again.
        let _ = self.pending.read();
        mem::take(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Readable when there is an event to take.
    pub fn pending(&self) -> &EventFd {
        &self.pending
    }

    fn put(&self, event: Event) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(event);
        // Fails only if the counter is full, and then it is readable already.
        let _ = self.pending.write(1);
    }
}

#[derive(Debug)]
pub(super) struct VcpuThread {
    pub id: u32,
    pub lifecycle: Arc<Lifecycle>,
    pub vcpu: SharedVcpu,
    pub held_by: Arc<Mutex<Option<HeldBy>>>,
    immediate_exit: Arc<ImmediateExit>,
    handle: JoinHandle<()>,
    thread_id: Arc<OnceLock<libc::pid_t>>,
}

impl VcpuThread {
    fn ask(&self, request: Request) {
        trace!("ask vCPU {} to {request:?}", self.id);
        self.lifecycle.ask(request);
        self.kick();
    }

    /// Makes the vCPU leave the guest and read its request. To be called after the request is set.
    pub fn kick(&self) {
        debug!("kick vCPU {}", self.id);
        self.immediate_exit.set(true);
        // The thread is not joined yet, so the handle is valid. An error can only mean that the
        // thread has ended, and then there is nothing to kick.
        let _ = self.handle.kill(kick::signal());
    }

    /// Runs `body` on the vCPU, which is out of the guest.
    pub fn with_vcpu<T>(&self, body: impl FnOnce(&mut Vcpu) -> T) -> T {
        body(&mut self.vcpu.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The vCPUs of a machine, each on a thread of its own. They do not run before
/// [`VcpuThreads::run`]. Dropping this stops them.
#[derive(Debug)]
pub struct VcpuThreads {
    pub(super) list: Vec<VcpuThread>,
    pub(super) latencies: Arc<PauseLatencies>,
    pub(super) memory: GuestMemoryMmap,
    events: Arc<Events>,
}

impl VcpuThreads {
    /// Starts a thread for each of `vcpus`, whose guest memory is `memory`.
    ///
    /// # Errors
    /// [`ThreadsError`] if the host has no more threads to give.
    pub fn new(
        vcpus: Vec<Vcpu>,
        devices: &Arc<Devices>,
        memory: &GuestMemoryMmap,
        on_message: &Arc<OnMessage>,
        pins: Option<&Pins>,
    ) -> Result<Self, ThreadsError> {
        kick::install_handler()?;
        limits::check_memory(u32::try_from(vcpus.len()).unwrap_or(u32::MAX), STACK)?;
        let events = Arc::new(Events::new().map_err(ThreadsError::Prepare)?);
        let mut threads = Self {
            list: Vec::with_capacity(vcpus.len()),
            latencies: Arc::default(),
            memory: memory.clone(),
            events,
        };
        for vcpu in vcpus {
            let thread = threads.spawn(vcpu, devices, on_message, pins.cloned())?;
            threads.list.push(thread);
        }
        Ok(threads)
    }

    fn spawn(
        &self,
        vcpu: Vcpu,
        devices: &Arc<Devices>,
        on_message: &Arc<OnMessage>,
        pins: Option<Pins>,
    ) -> Result<VcpuThread, ThreadsError> {
        let id = vcpu.id();
        let lifecycle = Arc::<Lifecycle>::default();
        let immediate_exit = Arc::clone(vcpu.immediate_exit());
        let journal = Arc::clone(vcpu.journal());
        let vcpu = Arc::new(Mutex::new(vcpu));
        let held_by = Arc::<Mutex<Option<HeldBy>>>::default();
        let mut guard = ExitGuard {
            vcpu: id,
            lifecycle: Arc::clone(&lifecycle),
            events: Arc::clone(&self.events),
            end: Some(End::Panicked),
        };
        let mut runner = VcpuRunner {
            id,
            vcpu: Arc::clone(&vcpu),
            immediate_exit: Arc::clone(&immediate_exit),
            journal,
            held_by: Arc::clone(&held_by),
            devices: Arc::clone(devices),
            memory: self.memory.clone(),
            on_message: Arc::clone(on_message),
            events: Arc::clone(&self.events),
            latencies: Arc::clone(&self.latencies),
        };
        let thread_id = Arc::<OnceLock<libc::pid_t>>::default();
        let own_id = Arc::clone(&thread_id);
        let handle = thread::Builder::new()
            .name(format!("vcpu{id}"))
            .stack_size(STACK)
            .spawn(move || {
                // SAFETY: takes nothing and cannot fail.
                own_id.get_or_init(|| unsafe { libc::gettid() });
                // The thread that started this one may have it blocked. Fails only for numbers that
                // are no signals.
                let _ = unblock_signal(kick::signal());
                if let Some(pins) = pins {
                    // `Pins` has checked that the host offers the CPU. If it has been taken offline
                    // since, the vCPU runs anywhere.
                    if let Err(error) = pins.bind(id) {
                        warn!("the vCPU is not bound to its host CPU: {error}");
                    }
                }
                confinement::enter(ThreadKind::Vcpu);
                debug!("vCPU thread starts");
                guard.drive(&mut runner);
                debug!("vCPU thread ends");
            })
            .map_err(|source| ThreadsError::Spawn { id, source })?;
        Ok(VcpuThread {
            id,
            lifecycle,
            vcpu,
            held_by,
            immediate_exit,
            handle,
            thread_id,
        })
    }

    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The queue of what happens on the vCPUs.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// The thread ids in the kernel (`gettid`), in the order of the vCPUs.
    pub fn thread_ids(&self) -> impl Iterator<Item = libc::pid_t> {
        // Each thread sets its id before anything else.
        self.list.iter().map(|thread| *thread.thread_id.wait())
    }

    /// Lets every vCPU that has no hold enter the guest.
    pub fn run(&self) {
        for thread in &self.list {
            thread.lifecycle.ask(Request::Run);
        }
    }

    /// Undoes [`VcpuThreads::run`], and waits until each vCPU has confirmed that it is out of the
    /// guest. This is no hold: the machine as a whole stops, to be inspected or for good.
    ///
    /// # Errors
    /// [`ThreadsError::Stuck`] names one that did not.
    pub fn suspend(&self) -> Result<(), ThreadsError> {
        for thread in &self.list {
            thread.ask(Request::Pause);
        }
        self.confirm()
    }

    fn confirm(&self) -> Result<(), ThreadsError> {
        first_late(&self.list, |it, deadline| {
            it.lifecycle.wait_out_of_guest(deadline)
        })
        .map_or(Ok(()), |thread| Err(ThreadsError::Stuck(thread.id)))
    }

    /// Stops every vCPU, ends the threads, and gives the vCPUs back. One whose thread panicked is
    /// missing.
    ///
    /// # Errors
    /// [`ThreadsError::Stuck`] if one does not leave the guest; its thread is then left behind.
    pub fn stop(mut self) -> Result<Vec<Vcpu>, ThreadsError> {
        self.ask_to_stop()?;
        Ok(self.join())
    }

    fn ask_to_stop(&self) -> Result<(), ThreadsError> {
        for thread in &self.list {
            thread.ask(Request::Stop);
        }
        self.confirm()
    }

    fn join(&mut self) -> Vec<Vcpu> {
        self.list
            .drain(..)
            .filter_map(|thread| {
                thread.handle.join().ok()?;
                // The thread has ended, and nothing else uses the vCPU: that would take a reference
                // to `self`.
                let vcpu = Arc::into_inner(thread.vcpu)?;
                vcpu.into_inner().ok()
            })
            .collect()
    }
}

/// Waits for all of `them`, each until `does` says by a deadline that it has done what it was asked.
/// Returns one that has not, although no other one has either for [`CONFIRMATION`]: as long as they
/// do one after the other, the host is slow and not stuck.
pub(super) fn first_late<T>(them: &[T], does: impl Fn(&T, Instant) -> bool) -> Option<&T> {
    let done = || {
        let now = Instant::now();
        them.iter().filter(|it| does(it, now)).count()
    };
    them.iter().find(|it| {
        let mut before = done();
        while !does(it, Instant::now() + CONFIRMATION) {
            let after = done();
            if after == before {
                return true;
            }
            before = after;
        }
        false
    })
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        // A thread that does not leave the guest cannot be joined, and is left behind.
        if self.ask_to_stop().is_ok() {
            self.join();
        }
    }
}

/// Reports the end of a vCPU when its thread ends, whatever ended it.
struct ExitGuard {
    vcpu: u32,
    lifecycle: Arc<Lifecycle>,
    events: Arc<Events>,
    end: Option<End>,
}

impl ExitGuard {
    fn drive(&mut self, runner: &mut VcpuRunner) {
        self.end = self.lifecycle.drive(runner);
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if !matches!(self.lifecycle.state().0, State::Exited(_)) {
            self.lifecycle.mark_exited(Exited::Panicked);
        }
        if let Some(end) = self.end.take() {
            self.events.put(Event::Ended {
                vcpu: self.vcpu,
                end,
            });
        }
    }
}

/// How long a vCPU that says it waits sleeps.
const BACK_OFF: Duration = Duration::from_micros(50);

/// A vCPU as the state machine drives it.
struct VcpuRunner {
    id: u32,
    vcpu: SharedVcpu,
    immediate_exit: Arc<ImmediateExit>,
    journal: Arc<Journal>,
    held_by: Arc<Mutex<Option<HeldBy>>>,
    devices: Arc<Devices>,
    memory: GuestMemoryMmap,
    on_message: Arc<OnMessage>,
    events: Arc<Events>,
    latencies: Arc<PauseLatencies>,
}

impl VcpuRunner {
    fn vcpu(&self) -> MutexGuard<'_, Vcpu> {
        self.vcpu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, message: Message) -> Step<End> {
        match (self.on_message)(self.id, message) {
            Reaction::GoOn => Step::Continue,
            Reaction::Hold(Holder::Operator) => {
                let held_by = match message {
                    Message::Reached { point, call } => HeldBy::Point { point, call },
                    Message::Stopped(Stop::Address(address)) => HeldBy::Address(address),
                    Message::Stopped(_) => HeldBy::Steps,
                    _ => HeldBy::Word,
                };
                *self.held_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(held_by);
                Step::Hold(Holder::Operator)
            }
            Reaction::Hold(holder) => Step::Hold(holder),
        }
    }

    fn ring(&self, doorbell: Doorbell) -> Step<End> {
        let message = match doorbell {
            Doorbell::Waiting => {
                // The vCPU that it waits for may be ready to run on this very processor.
                // `sched_yield` does not help: two waiting vCPUs can yield to each other for
                // seconds.
                thread::sleep(BACK_OFF);
                return Step::Continue;
            }
            Doorbell::WorkloadStarted => Message::WorkloadStarted,
            Doorbell::WarmedUp => Message::WarmedUp,
            Doorbell::WorkloadFinished => Message::WorkloadFinished,
            Doorbell::Done => Message::Done,
            Doorbell::Reached => match self.vcpu().fd().get_regs() {
                Ok(regs) => Message::Reached {
                    point: regs.rdi,
                    call: regs.rsi,
                },
                // Without registers it is not known which point this is, so it cannot be held
                // there.
                Err(_) => return Step::Continue,
            },
        };
        self.hear(message)
    }
}

impl VcpuRunner {
    /// The vCPU has come to an instruction that a debugger has put where another one was, if that is so.
    /// It is taken back to it, so that it executes the other one when it goes on.
    fn stop_at_instruction(&self) -> Step<End> {
        let dead = |error| Step::Ended(End::Dead(Death::Run(error)));
        let address = match stop_instruction::reached(&mut self.vcpu()) {
            Ok(address) => address,
            Err(error) => return dead(error),
        };
        let step = self.hear(Message::AtStopInstruction(address));
        if step == Step::Continue {
            // The guest writes to that port itself.
            self.devices.write_stray_port();
        } else if let Err(error) = stop_instruction::take_back(&self.vcpu(), address) {
            return dead(error);
        }
        step
    }

    /// The vCPU has come to the armed entry of a function, of which no call of a lab is known.
    fn enter_function(&self) -> Step<End> {
        let vcpu = self.vcpu();
        let registers = vcpu
            .fd()
            .get_regs()
            .and_then(|regs| Ok((regs, vcpu.fd().get_sregs()?)));
        // Without registers it is not known which function this is, so it cannot be held there.
        let Ok((regs, sregs)) = registers else {
            return Step::Continue;
        };
        let space = AddressSpace::new(vcpu.fd(), &self.memory);
        let point = function_entry::reached(&space, &regs, &sregs);
        drop(vcpu);
        self.hear(Message::Reached { point, call: 0 })
    }
}

impl Runner for VcpuRunner {
    type End = End;

    fn step(&mut self) -> Step<End> {
        // The lock is released after the run: other threads may inspect the vCPU afterwards.
        let exit = self.vcpu().run_unseen(&self.devices, &self.memory);
        match exit {
            Exit::Pio(Effect::Doorbell(doorbell)) => self.ring(doorbell),
            Exit::Pio(Effect::Dispatch(dispatch)) => {
                // Without registers it is not known of which call it tells.
                let call = self.vcpu().fd().get_regs().map_or(0, |regs| regs.rsi);
                self.hear(Message::Dispatch { dispatch, call })
            }
            Exit::Pio(Effect::GuestExit(code)) => Step::Ended(End::GuestExit(code)),
            Exit::Pio(Effect::PowerOff) => Step::Ended(End::PowerOff),
            Exit::Pio(Effect::Reset) => Step::Ended(End::Reset),
            Exit::Pio(Effect::Entry) => self.enter_function(),
            Exit::Pio(Effect::Stop) => self.stop_at_instruction(),
            Exit::Pio(Effect::Line) => self.hear(Message::Line),
            Exit::Pio(Effect::None) | Exit::Mmio | Exit::Again | Exit::Hlt => Step::Continue,
            Exit::Interrupted => {
                // Asked before the exit is confirmed, so that the state does not change afterwards.
                let _ = self.vcpu().mp_state();
                Step::Interrupted
            }
            Exit::Debug(None) => Step::Continue,
            Exit::Debug(Some(stop)) => self.hear(Message::Stopped(stop)),
            Exit::Dead(death) => Step::Ended(End::Dead(death)),
        }
    }

    fn set_kick(&mut self, pending: bool) {
        self.immediate_exit.set(pending);
    }

    fn changed(&mut self, change: Change, at: u64) {
        let held_by = match change {
            Change::Held => *self.held_by.lock().unwrap_or_else(PoisonError::into_inner),
            _ => None,
        };
        trace!("{change:?}");
        let state = match change {
            Change::Stalled(latency) => {
                self.latencies.record(latency);
                State::Stalled(Stall::Paused)
            }
            Change::Held => State::Stalled(Stall::Held),
            Change::Running => {
                *self.held_by.lock().unwrap_or_else(PoisonError::into_inner) = None;
                State::Running
            }
        };
        self.journal.became(state, at);
        self.events.put(Event::Changed {
            vcpu: self.id,
            held_by,
        });
    }
}
