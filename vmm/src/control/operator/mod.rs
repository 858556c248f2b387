//! The operator's side of a running machine: everything that a script or a client of the control
//! socket can ask of it, from any thread, by the same verbs. Each verb either does at once what it
//! says, or waits for something that it names, with a limit. Must know nothing of scripts and
//! sockets.
//!
//! The verbs are in files by what they are about: the machine as a `whole`, one `vcpu`, `telling` a
//! CPU what to do, the `ipis` on the wire. What the event loop and the vCPU threads need of an
//! operator is in `machine_side`, and what tells a subscriber of `events` in `announcing`.
//!
//! A machine can be over at any moment. Every verb then fails with [`OperatorError::Over`], and no
//! wait outlives the machine.

mod announcing;
mod commands;
mod console;
pub(in crate::control) mod counters;
mod debugging;
mod error;
mod events;
mod expected;
mod functions;
mod ipis;
mod machine_side;
mod notifier;
mod stops;
mod telling;
mod vcpu;
mod watches;
mod whole;
mod wire;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use regex::bytes::Regex;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use super::ending::Ending;
use super::recorder::Recorder;
use super::tracer::Tracer;
use crate::control::timer::timer;
use crate::lab::Lab;
use crate::machine::devices::{Console, Devices};
use crate::machine::lifecycle::Exited;
use crate::machine::pause_error::PauseError;
use crate::machine::points::Points;
use crate::machine::symbols::Symbols;
use crate::machine::threads::VcpuThreads;
use crate::machine::vm::Interrupts;
use crate::stats::window::Meter;

use commands::Commands;
pub use commands::{CommandResult, PostedCommand};
use console::Listening;
use debugging::Debugging;
pub use error::OperatorError;
use events::Announcer;
pub(super) use events::{Event, Subscriber};
pub use expected::Expected;
use functions::Functions;
pub use machine_side::{StartCounts, VmmIpiCounts};
use notifier::Notifier;
pub use notifier::Wait;
use stops::Stops;
pub use vcpu::Inspection;
use watches::Watches;
pub use watches::{NoSuchPoint, Watch};
pub use whole::LiveFigures;
use wire::Wire;
pub use wire::{InFlight, NoSuchVector, NotThere, Selection, TooManyRules};

/// What an operator is made of.
#[derive(Debug)]
pub(super) struct OperatorParts {
    pub lab: Lab,
    pub interrupts: Interrupts,
    pub meter: Arc<Meter>,
    pub devices: Arc<Devices>,
    /// The line on the console with which the workload starts, if one does.
    pub start: Option<Regex>,
    pub points: Points,
    pub symbols: Arc<Symbols>,
    /// The guest's command line.
    pub command_line: String,
    pub tracer: Option<Tracer>,
}

/// The operator of one machine.
#[derive(Debug)]
pub struct Operator {
    /// The vCPU threads, while the machine runs.
    threads: RwLock<Option<VcpuThreads>>,
    lab: Lab,
    interrupts: Interrupts,
    meter: Arc<Meter>,
    console: Arc<Console>,
    listening: Mutex<Listening>,
    symbols: Arc<Symbols>,
    command_line: String,
    watches: Watches,
    /// Of a guest without a lab.
    functions: Functions,
    /// By vCPU.
    stops: Box<[Stops]>,
    debugging: Debugging,
    tracer: Option<Tracer>,
    /// What is done by these verbs, for the trace.
    recorder: Recorder,
    commands: Commands,
    wire: Wire,
    /// See [`VmmIpiCounts`].
    added: AtomicU64,
    lost: AtomicU64,
    starts: AtomicU64,
    starts_lost: AtomicU64,
    dropped: AtomicU64,
    to_nobody: AtomicU64,
    /// Expires when a delayed IPI is due.
    alarm: Mutex<TimerFd>,
    notifier: Notifier,
    announcer: Announcer,
    expected: Mutex<Expected>,
    /// Whether the workload has started.
    started: AtomicBool,
    /// Whether a script drives the machine from beginning to end.
    driven: AtomicBool,
    /// Whether a client can come and drive it.
    reachable: AtomicBool,
    /// The ending that was requested, for the event loop to take.
    requested_ending: OnceLock<Ending>,
    ending_requested: EventFd,
    /// How it ended.
    ended: OnceLock<String>,
    /// Whether it was cut short from outside; see [`Operator::cut_short`].
    cut_short: AtomicBool,
    /// Whether it has been wound up.
    gone: AtomicBool,
}

impl Operator {
    pub(super) fn new(parts: OperatorParts) -> io::Result<Self> {
        let OperatorParts {
            lab,
            interrupts,
            meter,
            devices,
            start,
            points,
            symbols,
            command_line,
            tracer,
        } = parts;
        let console = Arc::clone(devices.console());
        let listening = Listening::new(devices, start, !lab.is_told());
        Ok(Self {
            threads: RwLock::new(None),
            interrupts,
            meter,
            console,
            listening: Mutex::new(listening),
            symbols,
            command_line,
            watches: Watches::new(points, lab.clone()),
            functions: Functions::default(),
            debugging: Debugging::new()?,
            stops: (0..lab.cpus()).map(|_| Stops::default()).collect(),
            recorder: Recorder::new(tracer.as_ref().is_some_and(Tracer::is_of_timeline)),
            tracer,
            commands: Commands::new(lab.clone()),
            wire: Wire::new(lab.manifest().wakes()),
            added: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            starts: AtomicU64::new(0),
            starts_lost: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            to_nobody: AtomicU64::new(0),
            alarm: Mutex::new(timer()?),
            notifier: Notifier::default(),
            announcer: Announcer::default(),
            expected: Mutex::default(),
            started: AtomicBool::new(false),
            driven: AtomicBool::new(false),
            reachable: AtomicBool::new(false),
            requested_ending: OnceLock::new(),
            ending_requested: EventFd::new(EFD_NONBLOCK)?,
            ended: OnceLock::new(),
            cut_short: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            lab,
        })
    }

    /// Waits until `look` finds something. `what` describes that, and is called only if the wait
    /// fails.
    fn wait<T>(
        &self,
        wait: Wait<'_>,
        what: impl Fn() -> String,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T, OperatorError> {
        let found = self.notifier.wait(wait.deadline(), || {
            // What happened before the end of the machine counts, and the machine can end during
            // `look`. So `look` comes after it was asked whether the machine is over.
            let over = self.ended.get().is_some();
            let found = look().map(Ok);
            let over = || over.then(|| Err(self.is_over()));
            let given_up = || {
                wait.is_given_up()
                    .then(|| Err(OperatorError::GivenUp(what())))
            };
            found.or_else(over).or_else(given_up)
        });
        found.unwrap_or_else(|| {
            Err(OperatorError::TimedOut {
                what: what(),
                limit: wait.limit,
            })
        })
    }

    fn with_threads<T>(
        &self,
        body: impl FnOnce(&VcpuThreads) -> Result<T, OperatorError>,
    ) -> Result<T, OperatorError> {
        self.check_not_over()?;
        let threads = self.threads();
        let threads = threads.as_ref().ok_or_else(|| self.is_over())?;
        body(threads).map_err(|error| match error {
            // If the guest has ended on a vCPU, or a vCPU was stopped, the whole machine is over.
            OperatorError::Pause(PauseError::Exited {
                why: Exited::Ended | Exited::Stopped,
                ..
            }) => self.is_over(),
            error => error,
        })
    }

    fn threads(&self) -> RwLockReadGuard<'_, Option<VcpuThreads>> {
        self.threads.read().unwrap_or_else(PoisonError::into_inner)
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

    fn listening(&self) -> MutexGuard<'_, Listening> {
        (self.listening.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
