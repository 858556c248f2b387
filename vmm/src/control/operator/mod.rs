//! The operator's side of a running machine: everything that a script or a client of the control socket can
//! ask of it, from any thread, by the same verbs. Each verb either does at once what it says or waits, with
//! a limit, for something that it names. Knows nothing of scripts and sockets.
//!
//! A machine can be over at any moment. Every verb then says so ([`OperatorError::Over`]), and no wait
//! outlives the machine.

mod commands;
pub(in crate::control) mod counters;
mod expected;
mod news;
mod watches;
mod wire;

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use shared::lab::Counters;
use shared::ledger::CallId;
use shared::mailbox::{Refusal, Verb, WAKE_VECTOR};
use shared::ports::Dispatch;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use super::Ending;
use super::tracer::Tracer;
use crate::cpus::CpuSet;
use crate::lab::judge::CallName;
use crate::lab::mailbox::Command;
use crate::lab::{Lab, Record};
use crate::machine::breakpoints::{BreakpointError, Stop};
use crate::machine::devices::Console;
use crate::machine::holding::HeldBy;
use crate::machine::inspect::Standing;
use crate::machine::lifecycle::{Exited, Stall, State};
use crate::machine::pausing::PauseError;
use crate::machine::points::Points;
use crate::machine::symbols::{NoSuchSymbol, Symbols};
use crate::machine::threads::{Crew, Message, Reaction};
use crate::machine::vm::Interrupts;
use crate::stats::trace::Trace;
use crate::stats::window::{Meter, Window};

use commands::Commands;
pub use commands::{Done, Ticket};
pub use expected::{Expected, NoSuchOracle, oracle};
use news::News;
use watches::Watches;
pub use watches::{NoSuchPoint, Watch};
use wire::Wire;
pub use wire::{InFlight, NotThere};

/// Why the operator's wish was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The machine is over.
    #[error("the machine is over: {0}")]
    Over(String),
    /// No such vCPU, or not one in a state for this.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// No such probe.
    #[error(transparent)]
    Point(#[from] NoSuchPoint),
    /// No such place in the image.
    #[error(transparent)]
    Symbol(#[from] NoSuchSymbol),
    /// No breakpoint.
    #[error(transparent)]
    Breakpoint(#[from] BreakpointError),
    /// No such IPI.
    #[error(transparent)]
    NotThere(#[from] NotThere),
    /// The wire holds what the guest waits for.
    #[error(
        "the wire still holds {count} IPIs, the first {first}; release them, or lose them on purpose"
    )]
    WireNotEmpty {
        /// How many.
        count: usize,
        /// One of them.
        first: InFlight,
    },
    /// What was waited for did not happen.
    #[error("{what} has not happened within {} s", limit.as_secs_f64())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// KVM refused.
    #[error("KVM does not deliver an interrupt to CPU {0}")]
    Interrupt(u32, #[source] errno::Error),
    /// KVM does not show it.
    #[error("KVM does not show the registers of vCPU {0}")]
    Look(u32, #[source] errno::Error),
    /// Nobody wants a trace.
    #[error("there is no trace to turn on or off; start vmm with --trace FILE or --report FILE")]
    NoTrace,
    /// The guest refused.
    #[error("CPU {cpu} was told to {verb:?} and did not: {}", why.describe())]
    Refused {
        /// The CPU.
        cpu: u32,
        /// What it was told.
        verb: Verb,
        /// Why it did not.
        why: Refusal,
    },
}

/// A held vCPU, looked at.
#[derive(Debug)]
pub struct Look {
    /// Registers, pending interrupts and the calls that led there.
    pub standing: Standing,
    /// The function it stands in, and how far.
    pub place: String,
    /// What it was held by, if it was held at a point, an address or after a step.
    pub held_by: Option<HeldBy>,
    /// The name of that point.
    pub probe: Option<String>,
}

/// The figures of a machine at one moment.
#[derive(Debug)]
pub struct Figures {
    /// Exits and KVM's statistics, since the start of the workload or of the machine.
    pub window: Window,
    /// What the CPUs of the guest have counted, in order.
    pub counters: Vec<Counters>,
}

/// What the VMM itself has done to the IPIs of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transit {
    /// Interrupts that it has added, to wake a CPU that was told something.
    pub added: u64,
    /// IPIs that were lost on the wire, on purpose or because their target does not exist.
    pub lost: u64,
    /// IPIs that are still on the wire.
    pub in_flight: u64,
}

/// What an operator works on.
#[derive(Debug)]
pub(super) struct Equipment {
    pub memory: GuestMemoryMmap,
    pub lab: Lab,
    pub interrupts: Interrupts,
    pub meter: Arc<Meter>,
    pub console: Arc<Console>,
    pub points: Points,
    pub symbols: Arc<Symbols>,
    /// The guest's command line.
    pub command_line: String,
    pub tracer: Option<Tracer>,
}

/// The operator of one machine.
#[derive(Debug)]
pub struct Operator {
    /// The vCPUs, as long as there are any.
    crew: RwLock<Option<Crew>>,
    memory: GuestMemoryMmap,
    lab: Lab,
    interrupts: Interrupts,
    meter: Arc<Meter>,
    console: Arc<Console>,
    symbols: Arc<Symbols>,
    command_line: String,
    watches: Watches,
    tracer: Option<Tracer>,
    commands: Commands,
    wire: Wire,
    /// See [`Transit`].
    added: AtomicU64,
    lost: AtomicU64,
    /// Expires when a delayed IPI is due.
    alarm: Mutex<TimerFd>,
    news: News,
    /// How often each vCPU is held on the operator's behalf.
    holds: Mutex<Vec<u32>>,
    expected: Mutex<Expected>,
    /// Whether the workload has started.
    started: AtomicBool,
    attended: AtomicBool,
    /// How it should end, if somebody has said so, on the way to the event loop.
    wish: OnceLock<Ending>,
    wished: EventFd,
    /// How it ended.
    ended: OnceLock<String>,
}

impl Operator {
    pub(super) fn new(equipment: Equipment) -> io::Result<Self> {
        let Equipment {
            memory,
            lab,
            interrupts,
            meter,
            console,
            points,
            symbols,
            command_line,
            tracer,
        } = equipment;
        Ok(Self {
            crew: RwLock::new(None),
            memory,
            interrupts,
            meter,
            console,
            symbols,
            command_line,
            watches: Watches::new(points, lab.clone()),
            tracer,
            commands: Commands::new(lab.clone()),
            wire: Wire::default(),
            added: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            alarm: Mutex::new(TimerFd::new()?),
            news: News::default(),
            holds: Mutex::new(vec![0; lab.cpus() as usize]),
            expected: Mutex::default(),
            started: AtomicBool::new(false),
            attended: AtomicBool::new(false),
            wish: OnceLock::new(),
            wished: EventFd::new(EFD_NONBLOCK)?,
            ended: OnceLock::new(),
            lab,
        })
    }
}

/// The machine's side.
impl Operator {
    /// Gives the operator the vCPUs.
    pub(super) fn take_over(&self, crew: Crew) {
        *self.crew.write().unwrap_or_else(PoisonError::into_inner) = Some(crew);
    }

    /// Works with the vCPUs, which it has, for as long as that takes. Others can do so meanwhile.
    pub(super) fn with_machine<T>(&self, body: impl FnOnce(&Crew) -> T) -> T {
        body(self.crew().as_ref().expect("the vCPUs were handed over"))
    }

    /// Gives the vCPUs back, when nobody uses them any more.
    pub(super) fn hand_back(&self) -> Crew {
        let mut crew = self.crew.write().unwrap_or_else(PoisonError::into_inner);
        crew.take().expect("the vCPUs were handed over")
    }

    fn crew(&self) -> RwLockReadGuard<'_, Option<Crew>> {
        self.crew.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears what a vCPU says, on that vCPU's thread.
    pub(super) fn hear(&self, vcpu: u32, message: Message) -> Reaction {
        let reaction = match message {
            Message::WorkloadStarted => {
                // If one is wanted, it begins here. Who waits for the start may end it at once, and must not
                // be overtaken.
                if !self.started.load(Ordering::Relaxed) {
                    let _ = self.trace(true);
                }
                self.started.store(true, Ordering::Release);
                Reaction::GoOn
            }
            Message::Reached { point, call } if self.watches.reached(vcpu, point, call) => {
                self.count_hold(vcpu);
                Reaction::Hold
            }
            Message::Stopped(stop) => {
                // After steps it is held by the hold that it was released from for them.
                if stop != Stop::Steps {
                    self.count_hold(vcpu);
                }
                Reaction::Hold
            }
            Message::Dispatch(dispatch) => {
                if let Some(dispatch) = self.wire.send(vcpu, dispatch) {
                    // A target that does not exist gets nothing, as on a bus.
                    let _ = self.carry(dispatch);
                }
                self.set_alarm();
                Reaction::GoOn
            }
            _ => Reaction::GoOn,
        };
        self.news.publish();
        reaction
    }

    /// Tells those who wait that a vCPU has changed its state.
    pub(super) fn publish(&self) {
        self.news.publish();
    }

    /// The machine has ended, for this reason.
    pub(super) fn end(&self, why: &dyn fmt::Display) {
        self.ended.get_or_init(|| why.to_string());
        self.news.publish();
    }

    /// Readable when somebody wishes the machine to end.
    pub(super) fn wished(&self) -> &EventFd {
        &self.wished
    }

    /// How somebody wishes it to end.
    pub(super) fn wish(&self) -> Option<Ending> {
        let _ = self.wished.read();
        self.wish.get().cloned()
    }

    /// Readable when delayed IPIs are due.
    pub(super) fn alarm_fd(&self) -> RawFd {
        self.alarm().as_raw_fd()
    }

    /// Delivers what is due.
    pub(super) fn deliver_due(&self) {
        for dispatch in self.wire.due(Instant::now()) {
            let _ = self.carry(dispatch);
        }
        self.set_alarm();
    }

    /// Readable when the trace is to be collected.
    pub(super) fn trace_fd(&self) -> Option<RawFd> {
        self.tracer.as_ref().map(Tracer::as_raw_fd)
    }

    /// Collects what was traced meanwhile.
    pub(super) fn collect_trace(&self) {
        if let Some(tracer) = &self.tracer {
            tracer.tick();
        }
    }

    /// What was traced.
    pub(super) fn traced(&self) -> Option<Trace> {
        self.tracer.as_ref().map(Tracer::trace)
    }

    /// What the VMM itself has done to IPIs so far.
    pub(super) fn transit(&self) -> Transit {
        Transit {
            added: self.added.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            in_flight: self.wire.in_flight().len() as u64,
        }
    }

    /// What the run is expected to break.
    pub(super) fn expectations(&self) -> Expected {
        self.expected().clone()
    }

    fn set_alarm(&self) {
        let now = Instant::now();
        let alarm = &mut *self.alarm();
        match self.wire.next_due() {
            // Zero would disarm it. Setting a timer that exists does not fail.
            Some(due) => {
                let left = due.saturating_duration_since(now);
                let _ = alarm.reset(left.max(Duration::from_nanos(1)), None);
            }
            None => _ = alarm.clear(),
        }
    }

    fn alarm(&self) -> MutexGuard<'_, TimerFd> {
        self.alarm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers an IPI that was on the wire.
    fn carry(&self, dispatch: Dispatch) -> Result<(), OperatorError> {
        let arrived = self.deliver(dispatch);
        if !matches!(arrived, Ok(true)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        arrived.map(|_| ())
    }

    /// Delivers them all, in order, whatever becomes of any.
    fn carry_all(&self, held: Vec<Dispatch>) -> Result<(), OperatorError> {
        held.into_iter()
            .map(|it| self.carry(it))
            .fold(Ok(()), Result::and)
    }

    /// Returns whether it has arrived.
    fn deliver(&self, dispatch: Dispatch) -> Result<bool, OperatorError> {
        let Dispatch { target, vector } = dispatch;
        self.interrupts
            .send(target, vector)
            .map_err(|source| OperatorError::Interrupt(target, source))
    }
}

/// The machine as a whole.
impl Operator {
    /// Number of vCPUs.
    pub fn cpus(&self) -> u32 {
        self.lab.cpus()
    }

    /// The value that the guest's command line gives `key`, if it does. The last one counts.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.command_line
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .next_back()
    }

    /// Holds every vCPU that has not exited, confirmed.
    ///
    /// # Errors
    /// As for one; none is held then.
    pub fn pause_all(&self) -> Result<(), OperatorError> {
        self.with_crew(|crew| {
            crew.pause_all()?;
            self.holds().iter_mut().for_each(|holds| *holds += 1);
            Ok(())
        })
    }

    /// Undoes one pause of every vCPU that has one.
    ///
    /// # Errors
    /// [`OperatorError::Over`].
    pub fn resume_all(&self) -> Result<(), OperatorError> {
        for cpu in 0..self.cpus() {
            // One that nobody holds is left alone.
            if let Err(OperatorError::Over(why)) = self.resume(cpu) {
                return Err(OperatorError::Over(why));
            }
        }
        Ok(())
    }

    /// The figures now.
    pub fn figures(&self) -> Figures {
        Figures {
            window: self.meter.window(),
            counters: self.lab.counters().collect(),
        }
    }

    /// Turns the trace on or off.
    ///
    /// # Errors
    /// [`OperatorError::NoTrace`] if the machine was started without one.
    pub fn trace(&self, on: bool) -> Result<(), OperatorError> {
        let tracer = self.tracer.as_ref().ok_or(OperatorError::NoTrace)?;
        let points = if on {
            tracer.points_when_on()
        } else {
            Vec::new()
        };
        self.watches.trace(&points);
        tracer.turn(on);
        Ok(())
    }

    /// The record of a call, unless it was complete long ago and its place is taken.
    pub fn record(&self, call: CallId) -> Option<Record> {
        self.lab.record(call)
    }

    /// Says what the run is expected to break, or whom it leaves behind.
    pub fn expect(&self, change: impl FnOnce(&mut Expected)) {
        change(&mut self.expected());
    }

    /// Lets all go and ends the workload of a guest that takes commands: every CPU, but for those that
    /// are left behind, finishes, the guest looks for what is out of order, and the machine ends by that.
    ///
    /// # Errors
    /// If a CPU has not finished within `limit`, or the wire is not empty.
    pub fn finish(&self, limit: Duration) -> Result<(), OperatorError> {
        if let Some(first) = self.wire.in_flight().first().copied() {
            let count = self.wire.in_flight().len();
            return Err(OperatorError::WireNotEmpty { count, first });
        }
        // Nobody holds IPIs any more; one that was sent since is delivered.
        self.wire_release_all()?;
        let abandoned = self.expected().abandoned.clone();
        let all: CpuSet = (0..self.cpus()).collect();
        let finishing = all.without(&abandoned);
        for cpu in finishing.iter() {
            self.watches.disarm(cpu);
            self.let_go(cpu)?;
        }
        let deadline = Instant::now() + limit;
        for cpu in finishing.iter() {
            let left = deadline.saturating_duration_since(Instant::now());
            let told = self.post(cpu, &Command::among(Verb::Finish, finishing.clone()), left);
            match told {
                // The guest does not wait for CPUs that are offline, and can be over before they are told.
                Err(OperatorError::Over(_)) if finishing.iter().next() != Some(cpu) => break,
                told => _ = told?,
            }
        }
        let over = self.news.wait(deadline, || self.ended.get().map(|_| ()));
        over.ok_or_else(|| OperatorError::TimedOut {
            what: format!(
                "the end of the guest, whose {} were told to finish",
                finishing.noun()
            ),
            limit,
        })
    }

    /// Waits until the guest's workload has started, so that all its CPUs are up.
    ///
    /// # Errors
    /// If it has not within `limit`.
    pub fn wait_started(&self, limit: Duration) -> Result<(), OperatorError> {
        let what = || "the start of the guest's workload".to_owned();
        self.wait(limit, what, || {
            self.started.load(Ordering::Acquire).then_some(())
        })
    }

    /// Waits for the machine to end by itself, and leaves that to its own limits.
    pub fn wait_end(&self) {
        while self.ended.get().is_none() {
            let soon = Instant::now() + Duration::from_secs(1);
            self.news.wait(soon, || self.ended.get().map(|_| ()));
        }
    }

    /// Ends the machine now, in this way.
    pub(super) fn quit(&self, ending: Ending) {
        if self.wish.set(ending).is_ok() {
            // Cannot be full after one write.
            let _ = self.wished.write(1);
        }
    }

    /// Adds a line to the guest's console, in order with what the guest says.
    pub fn say(&self, text: &str) {
        self.console.add(&format!("{text}\n"));
    }

    /// Says whether somebody drives the machine, so that it may well stand still.
    pub fn attend(&self, attended: bool) {
        self.attended.store(attended, Ordering::Relaxed);
    }

    /// Whether somebody drives the machine.
    pub(super) fn is_attended(&self) -> bool {
        self.attended.load(Ordering::Relaxed)
    }

    /// Whether the guest waits to be told what to do, and when to finish. It knows as soon as its workload has
    /// started; who has told it something took it for such a guest.
    pub fn takes_commands(&self) -> bool {
        self.lab.takes_commands() || self.commands.is_used()
    }

    /// How the machine ended, if it has.
    pub fn over(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }
}

/// One vCPU.
impl Operator {
    /// The state that a vCPU has confirmed.
    ///
    /// # Errors
    /// [`PauseError::NoSuchVcpu`].
    pub fn state(&self, cpu: u32) -> Result<State, OperatorError> {
        self.with_crew(|crew| Ok(crew.state(cpu)?.0))
    }

    /// Holds a vCPU out of the guest, confirmed.
    ///
    /// # Errors
    /// As [`Crew::pause`].
    pub fn pause(&self, cpu: u32) -> Result<State, OperatorError> {
        self.with_crew(|crew| {
            let state = crew.pause(cpu)?;
            self.count_hold(cpu);
            Ok(state)
        })
    }

    /// Undoes one pause, or the hold at a point.
    ///
    /// # Errors
    /// As [`Crew::resume`].
    pub fn resume(&self, cpu: u32) -> Result<(), OperatorError> {
        self.with_crew(|crew| {
            // The stalls of the command line are not the operator's to undo. Counted first: as soon as it
            // runs, the vCPU can come to where it is held again.
            if let Some(held) = self.holds().get_mut(cpu as usize) {
                *held = held.checked_sub(1).ok_or(PauseError::NotPaused(cpu))?;
            }
            Ok(crew.resume_confirmed(cpu)?)
        })
    }

    /// Has a vCPU held when it comes to a point.
    ///
    /// # Errors
    /// [`OperatorError::Point`], or no such vCPU.
    pub fn hold_at(&self, cpu: u32, watch: Watch) -> Result<(), OperatorError> {
        self.state(cpu)?;
        Ok(self.watches.arm(cpu, watch)?)
    }

    /// Has a vCPU held when it comes to an instruction, given by symbol or by address. The vCPU is
    /// paused for a moment.
    ///
    /// # Errors
    /// If the host has no breakpoints, or the image no such symbol.
    pub fn break_at(&self, cpu: u32, place: &str) -> Result<u64, OperatorError> {
        let address = self.symbols.address(place)?;
        self.with_crew(|crew| {
            crew.pause(cpu)?;
            let set = crew.set_breakpoint(cpu, Some(address));
            crew.resume(cpu)?;
            set?;
            Ok(address)
        })
    }

    /// No longer waits for a vCPU to come anywhere.
    ///
    /// # Errors
    /// No such vCPU.
    pub fn disarm(&self, cpu: u32) -> Result<(), OperatorError> {
        self.state(cpu)?;
        self.watches.disarm(cpu);
        Ok(())
    }

    /// Waits until a vCPU is held at a point, an address or after a step.
    ///
    /// # Errors
    /// [`OperatorError::TimedOut`] says where it is instead.
    pub fn wait_held(&self, cpu: u32, limit: Duration) -> Result<(), OperatorError> {
        self.state(cpu)?;
        let what = || match self.state(cpu) {
            Ok(State::Stalled(Stall::Paused)) => {
                format!("CPU {cpu} being held (it is paused)")
            }
            Ok(State::Exited(why)) => format!("CPU {cpu} being held ({why})"),
            _ => format!("CPU {cpu} being held (it runs)"),
        };
        self.wait(limit, what, || {
            (self.state(cpu).ok()? == State::Stalled(Stall::Held)).then_some(())
        })
    }

    /// Has a held or paused vCPU execute `count` instructions, and waits until it is held again.
    ///
    /// # Errors
    /// If it is not stalled, or has not come back within `limit`.
    pub fn step(&self, cpu: u32, count: u64, limit: Duration) -> Result<(), OperatorError> {
        self.with_crew(|crew| Ok(crew.step(cpu, count)?))?;
        let stepped = self.wait(
            limit,
            || format!("the end of {count} steps of CPU {cpu}, which may be halted,"),
            || (self.state(cpu).ok()? == State::Stalled(Stall::Held)).then_some(()),
        );
        if let Err(OperatorError::TimedOut { .. }) = stepped {
            // The hold that the steps were to end in is still owed.
            self.with_crew(|crew| {
                crew.pause(cpu)?;
                Ok(crew.step(cpu, 0)?)
            })?;
        }
        stepped
    }

    /// Looks at a stalled vCPU.
    ///
    /// # Errors
    /// If it is not stalled.
    pub fn look(&self, cpu: u32) -> Result<Look, OperatorError> {
        self.with_crew(|crew| {
            let standing = crew
                .with_stalled(cpu, |vcpu| Standing::of(vcpu, &self.memory))?
                .map_err(|source| OperatorError::Look(cpu, source))?;
            let held_by = crew.held_by(cpu);
            let probe = match held_by {
                Some(HeldBy::Point { point, .. }) => self.watches.points().at(point),
                _ => None,
            };
            Ok(Look {
                place: self.symbols.place(standing.regs.rip),
                probe: probe.map(|point| point.name.clone()),
                held_by,
                standing,
            })
        })
    }

    /// What a vCPU is held by, if it has come there by itself.
    ///
    /// # Errors
    /// [`OperatorError::Over`].
    pub fn held_by(&self, cpu: u32) -> Result<Option<HeldBy>, OperatorError> {
        self.with_crew(|crew| Ok(crew.held_by(cpu)))
    }

    /// The name of the point at `address`.
    pub fn probe_name(&self, address: u64) -> Option<&str> {
        self.watches.points().at(address).map(|point| &*point.name)
    }

    /// What a CPU of the guest has counted.
    pub fn counters(&self, cpu: u32) -> Option<Counters> {
        self.lab.counters().nth(cpu as usize)
    }
}

/// Commands to a guest that takes them.
impl Operator {
    /// Tells a CPU to do something, when it has done the last thing it was told.
    ///
    /// # Errors
    /// If that takes longer than `limit`.
    pub fn post(
        &self,
        cpu: u32,
        command: &Command,
        limit: Duration,
    ) -> Result<Ticket, OperatorError> {
        self.state(cpu)?;
        let what = || {
            let last = self.outstanding().into_iter().find(|last| last.cpu == cpu);
            let last = last.map_or(String::new(), |last| format!("{:?} on ", last.verb));
            format!("{last}CPU {cpu}, which is to do {:?} next,", command.verb)
        };
        let ticket = self.wait(limit, what, || self.commands.post(cpu, command).ok())?;
        let arrived = self.deliver(Dispatch {
            target: cpu,
            vector: WAKE_VECTOR,
        })?;
        self.added.fetch_add(arrived.into(), Ordering::Relaxed);
        Ok(ticket)
    }

    /// What came of a command, if it is done.
    ///
    /// # Errors
    /// [`OperatorError::Refused`] if it was refused.
    pub fn done(&self, ticket: Ticket) -> Result<Option<Done>, OperatorError> {
        let done = self.commands.done(ticket);
        match done.map(|done| done.result) {
            Some(Err(why)) => Err(OperatorError::Refused {
                cpu: ticket.cpu,
                verb: ticket.verb,
                why,
            }),
            _ => Ok(done),
        }
    }

    /// Waits until a command is done.
    ///
    /// # Errors
    /// If it takes longer than `limit`, or was refused.
    pub fn wait_done(&self, ticket: Ticket, limit: Duration) -> Result<Done, OperatorError> {
        let what = || format!("{:?} on CPU {}", ticket.verb, ticket.cpu);
        self.wait(limit, what, || self.done(ticket).transpose())?
    }

    /// The call that a command makes, once the CPU has entered it in its ledger.
    ///
    /// # Errors
    /// If that takes longer than `limit`, or it makes none.
    pub fn call(&self, ticket: Ticket, limit: Duration) -> Result<CallId, OperatorError> {
        let what = || {
            format!(
                "{:?} being entered in CPU {}'s ledger",
                ticket.verb, ticket.cpu
            )
        };
        self.wait(limit, what, || self.commands.call(ticket))
    }

    /// The command with this number, if it was posted.
    pub fn ticket(&self, cpu: u32, number: u64) -> Option<Ticket> {
        self.commands.ticket(cpu, number)
    }

    /// The commands that are not done.
    pub fn outstanding(&self) -> Vec<Ticket> {
        self.commands.outstanding()
    }

    /// Waits until a call has run on `cpus`.
    ///
    /// # Errors
    /// [`OperatorError::TimedOut`] says on which it has not.
    pub fn wait_ran(
        &self,
        call: CallId,
        cpus: &CpuSet,
        limit: Duration,
    ) -> Result<(), OperatorError> {
        let missing = || match self.record(call) {
            Some(record) => cpus.without(&record.ran),
            None => CpuSet::default(),
        };
        let what = || format!("{} on {}", CallName(call), missing().noun());
        self.wait(limit, what, || missing().is_empty().then_some(()))
    }
}

/// The wire.
impl Operator {
    /// Holds what one CPU sends another from now on.
    pub fn wire_hold(&self, from: u32, to: u32) {
        self.wire.hold(from, to);
    }

    /// Holds everything sent from now on.
    pub fn wire_hold_all(&self) {
        self.wire.hold_all();
    }

    /// Has what one CPU sends another arrive so much later.
    pub fn wire_delay(&self, from: u32, to: u32, delay: Duration) {
        self.wire.delay(from, to, delay);
        self.set_alarm();
    }

    /// Delivers what is held, in order, and holds no longer.
    ///
    /// # Errors
    /// If KVM does not deliver.
    pub fn wire_release(&self, from: u32, to: u32) -> Result<(), OperatorError> {
        let held = self.wire.release(from, to);
        self.carry_all(held)
    }

    /// Delivers everything that is held, and holds no longer.
    ///
    /// # Errors
    /// If KVM does not deliver.
    pub fn wire_release_all(&self) -> Result<(), OperatorError> {
        let held = self.wire.release_all();
        self.carry_all(held)
    }

    /// Delivers one of those that are held, the `nth` from 0, ahead of the others.
    ///
    /// # Errors
    /// If it is not there.
    pub fn wire_deliver(&self, from: u32, to: u32, nth: usize) -> Result<(), OperatorError> {
        let dispatch = self.wire.take(from, to, nth)?;
        self.carry(dispatch)
    }

    /// Loses one of those that are held.
    ///
    /// # Errors
    /// If it is not there.
    pub fn wire_lose(&self, from: u32, to: u32, nth: usize) -> Result<(), OperatorError> {
        self.wire.take(from, to, nth)?;
        self.lost.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// What is in flight.
    pub fn in_flight(&self) -> Vec<InFlight> {
        self.wire.in_flight()
    }

    /// Waits until `count` IPIs from one CPU to another are held.
    ///
    /// # Errors
    /// [`OperatorError::TimedOut`].
    pub fn wait_in_flight(
        &self,
        from: u32,
        to: u32,
        count: usize,
        limit: Duration,
    ) -> Result<(), OperatorError> {
        let what = || format!("{count} IPIs from CPU {from} to CPU {to} on the wire");
        self.wait(limit, what, || {
            let all = self.in_flight();
            let between = all
                .iter()
                .filter(|it| it.from == from && it.dispatch.target == to);
            (between.count() >= count).then_some(())
        })
    }
}

impl Operator {
    /// Waits until `look` finds something, for `limit` at most. `what` says what is waited for, and is
    /// asked only when it has not come.
    fn wait<T>(
        &self,
        limit: Duration,
        what: impl Fn() -> String,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T, OperatorError> {
        enum Outcome<T> {
            Found(T),
            Over,
        }
        let outcome = self.news.wait(Instant::now() + limit, || {
            // Looked for first: what has happened by the end has happened.
            let found = look().map(Outcome::Found);
            found.or_else(|| self.ended.get().map(|_| Outcome::Over))
        });
        match outcome {
            Some(Outcome::Found(found)) => Ok(found),
            Some(Outcome::Over) => Err(self.is_over()),
            None => Err(OperatorError::TimedOut {
                what: what(),
                limit,
            }),
        }
    }

    fn with_crew<T>(
        &self,
        body: impl FnOnce(&Crew) -> Result<T, OperatorError>,
    ) -> Result<T, OperatorError> {
        self.check_not_over()?;
        let crew = self.crew();
        let crew = crew.as_ref().ok_or_else(|| self.is_over())?;
        body(crew).map_err(|error| match error {
            // A vCPU on which the guest has ended, or one that was stopped, is the end of all.
            OperatorError::Pause(PauseError::Exited {
                why: Exited::Ended | Exited::Stopped,
                ..
            }) => self.is_over(),
            error => error,
        })
    }

    fn check_not_over(&self) -> Result<(), OperatorError> {
        self.ended.get().map_or(Ok(()), |_| Err(self.is_over()))
    }

    fn is_over(&self) -> OperatorError {
        let why = self
            .ended
            .get()
            .map_or("it is being wound up", String::as_str);
        OperatorError::Over(why.to_owned())
    }

    /// Undoes every hold that is the operator's.
    fn let_go(&self, cpu: u32) -> Result<(), OperatorError> {
        loop {
            match self.resume(cpu) {
                Ok(()) => {}
                Err(OperatorError::Pause(PauseError::NotPaused(_))) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn count_hold(&self, cpu: u32) {
        if let Some(holds) = self.holds().get_mut(cpu as usize) {
            *holds += 1;
        }
    }

    fn holds(&self) -> MutexGuard<'_, Vec<u32>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
