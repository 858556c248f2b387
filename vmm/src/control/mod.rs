//! Runs a machine to its end: starts the vCPU threads, runs one event loop in the calling thread,
//! and collects the results once the run is over. vCPUs are reached only through [`VcpuThreads`];
//! nothing here is specific to x86.

mod ending;
mod error;
mod event_loop;
pub mod gdb;
mod live;
pub mod operator;
mod output;
mod recorder;
pub mod script;
mod script_failure;
pub mod socket;
mod stall;
mod timer;
mod tracer;
mod watchdog;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use event_manager::{EventManager, SubscriberOps};
use regex::bytes::Regex;
use tracing::info;
use vm_memory::GuestMemoryMmap;

use crate::confinement::{self, ThreadKind};
use crate::kernel_log::KernelLog;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::machine::devices::Strays;
use crate::machine::inspect::VcpuDump;
use crate::machine::lifecycle::{Stall as Stalled, StallTotals, State};
use crate::machine::message::{Message, OnMessage};
use crate::machine::pause_latency::PauseLatency;
use crate::machine::pin::Pins;
use crate::machine::points::Points;
use crate::machine::symbols::Symbols;
use crate::machine::threads::VcpuThreads;
use crate::machine::vcpu::Vcpu;
use crate::stats::sources::{Source, Trials};
use crate::stats::trace::Trace;
use crate::stats::window::{Meter, Window};

pub use ending::Ending;
pub use error::ControlError;
use event_loop::{EventLoop, TimeLimits};
use live::Live;
pub use live::{Screen, Show};
use operator::{Expected, Operator, OperatorParts, VmmIpiCounts};
use output::Output;
pub use output::Stream;
pub use stall::{
    NoSuchVcpu, PlannedStall, StallError, StallSummary, Stalls, Steal, StealPeriod, StealPlan,
};
use stall::{StallDriver, WorkloadStart};
use tracer::Tracer;
pub use tracer::Tracing;
use watchdog::Watchdog;

/// How long a run may take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// End the run after this time.
    pub timeout: Option<Duration>,
    /// End the run when nothing has moved for this time.
    pub watchdog: Option<Duration>,
}

/// Everything that is known once a run is over and no vCPU runs any more.
#[derive(Debug)]
pub struct RunResult {
    /// What ended it.
    pub ending: Ending,
    /// When that was.
    pub ended: Instant,
    /// What was counted.
    pub window: Window,
    /// How often and for how long each vCPU was stalled, in order.
    pub stall_totals: Vec<StallTotals>,
    /// How often and for how long a debugger has stopped each vCPU, in order.
    pub debugged_totals: Vec<StallTotals>,
    /// How long pauses took from request to confirmation; `None` if none was measured.
    pub pause_latency: Option<PauseLatency>,
    /// The summary of the planned stalls.
    pub stalls: StallSummary,
    /// What the run was expected to break.
    pub expected: Expected,
    /// A dump of each vCPU.
    pub dumps: Vec<VcpuDump>,
    /// Why there are no statistics of KVM, if so.
    pub blind: Option<String>,
    /// The sources of counts with the results of their trials, if they were tried.
    pub sources: Vec<Source>,
    /// Why no tracepoints were counted although they could be believed, if so.
    pub uncounted: Option<String>,
    /// Accesses that no device knew.
    pub strays: Strays,
    /// What was lost of the guest's console output, if anything was.
    pub console_loss: Option<String>,
    /// What the guest's kernel has said of itself, if it was told of no lab.
    pub kernel_log: KernelLog,
    /// Whether the guest was told of a lab.
    pub has_lab: bool,
    /// How many vCPUs the machine had.
    pub vcpus: u32,
    /// What the VMM itself did to IPIs.
    pub vmm_ipis: VmmIpiCounts,
    /// The trace, if there was one.
    pub trace: Option<Trace>,
    /// What the guest wrote to its console, if that was captured.
    pub console: String,
}

/// The settings of a run.
#[derive(Debug)]
pub struct Setup<'a> {
    /// How long it may take.
    pub limits: Limits,
    /// The planned stalls.
    pub stalls: &'a Stalls,
    /// Host CPUs to bind the vCPUs to.
    pub pins: Option<&'a Pins>,
    /// Where the guest's console goes.
    pub console: Stream,
    /// Whether it keeps its control characters there.
    pub raw_console: bool,
    /// The points of the guest image at which CPUs can be held.
    pub points: Points,
    /// The functions of the guest image.
    pub symbols: Arc<Symbols>,
    /// The line on the guest's console with which its workload starts, if one does.
    pub start: Option<Regex>,
    /// The guest's command line.
    pub command_line: String,
    /// What to trace, from the start of the workload on.
    pub trace: Tracing,
    /// What to show while it goes on, and where.
    pub show: Show,
    /// The sources of counts, if they are tried.
    pub sources: Option<Trials>,
}

/// Runs `machine` to its end. Calls `attend` with its operator before the first vCPU enters the
/// guest.
///
/// # Errors
/// [`ControlError`] if the host does not let it start, run or stop. How the guest fared is not an
/// error: [`RunResult`] says it.
pub fn run(
    machine: Machine,
    lab: &Lab,
    setup: Setup<'_>,
    attend: impl FnOnce(&Arc<Operator>),
) -> Result<RunResult, ControlError> {
    let meter = Arc::new(Meter::new(&machine, lab.clone(), setup.sources.clone()));

    let tracer = (setup.trace != Tracing::NOTHING)
        .then(|| Tracer::new(setup.trace, &machine, lab.clone(), &setup.points))
        .transpose()
        .map_err(|e| ControlError::Prepare("create a timer for the trace", e))?;

    let Machine {
        vcpus,
        vm,
        devices,
        memory,
    } = machine;
    let count = u32::try_from(vcpus.len()).unwrap_or(u32::MAX);
    let start = WorkloadStart::new().map_err(|e| ControlError::Prepare("create an eventfd", e))?;
    let start = Arc::new(start);
    let operator = Operator::new(OperatorParts {
        lab: lab.clone(),
        interrupts: vm.interrupts(),
        meter: Arc::clone(&meter),
        devices: Arc::clone(&devices),
        start: setup.start,
        points: setup.points,
        symbols: setup.symbols,
        command_line: setup.command_line,
        tracer,
    });
    let operator = operator.map_err(|e| ControlError::Prepare("create a timer", e))?;
    let operator = Arc::new(operator);
    let on_message: Arc<OnMessage> = Arc::new({
        let (meter, start, operator) = (meter.clone(), start.clone(), operator.clone());
        move |vcpu, message| {
            let message = match message {
                Message::Line if operator.read_console() => Message::WorkloadStarted,
                other => other,
            };
            meter.on_message(message);
            let reaction = operator.hear(vcpu, message);
            match message {
                Message::WorkloadStarted => {
                    info!("the workload starts");
                    // The operator has turned the trace on by now: a stall that begins at once is
                    // in it.
                    start.announce();
                }
                Message::WorkloadFinished => info!("the workload is over"),
                _ => {}
            }
            reaction
        }
    });
    operator.take_over(VcpuThreads::new(
        vcpus,
        &devices,
        &memory,
        &on_message,
        setup.pins,
    )?);
    let mut uncounted = None;
    let ended = operator.with_machine(|threads| {
        if let Some(tracepoints) = setup.sources.as_ref().and_then(Trials::tracepoints) {
            let counted = meter.count(tracepoints, threads.thread_ids());
            uncounted = counted.err().map(|error| error.to_string());
        }
        let stalls = StallDriver::new(setup.stalls, threads, &start, operator.recorder())
            .map_err(|e| ControlError::Prepare("create a timer for stalls", e))?;
        let watchdog = setup
            .limits
            .watchdog
            .map(|limit| Watchdog::new(limit, threads, lab, devices.console(), &meter));
        let mut event_loop = EventLoop::new(
            threads,
            &operator,
            stalls,
            devices.console(),
            Output::new(setup.console, setup.raw_console)
                .map_err(|e| ControlError::Prepare("use the output", e))?,
            TimeLimits {
                timeout: setup.limits.timeout,
                watchdog,
            },
        )?;
        let live = Live::new(setup.show, threads, &operator, &meter, lab)
            .map_err(|e| ControlError::Prepare("create a timer for the live display", e))?;
        if let Some(live) = live {
            event_loop.show(live);
        }
        attend(&operator);
        info!("the vCPUs enter the guest");
        watch(event_loop, threads)
    });
    let ended_at = Instant::now();
    let _mark = MarkWoundUp(&operator);
    // All that wait for the machine must learn that it is over, also after an error.
    match &ended {
        Ok((ending, ..)) => {
            operator.announce_end(Some(ending), ending);
            operator.note_end_for_debugger(ending.debugger_status());
            operator.end(ending, ending.cuts_short());
        }
        Err(error) => {
            operator.announce_end(None, error);
            operator.end(error, true);
        }
    }
    let threads = operator.hand_back();
    let (ending, stalls, mut output) = ended?;

    let debugged_totals = threads.debugged_totals();
    let (stall_totals, pause_latency) = (threads.stall_totals(), threads.pause_latency());
    let stalled: Vec<_> = (0..count).map(|id| stalled(&threads, id)).collect();
    threads.suspend()?;
    info!("all vCPUs are out of the guest");
    let window = meter.window();
    let vcpus = threads.stop()?;
    output.finish(devices.console());
    let result = RunResult {
        ending,
        ended: ended_at,
        window,
        stall_totals,
        debugged_totals,
        pause_latency,
        stalls,
        dumps: dumps(&vcpus, &memory, &stalled),
        expected: operator.expectations(),
        kernel_log: operator.kernel_log(),
        has_lab: lab.is_told(),
        vmm_ipis: operator.vmm_ipis(),
        blind: meter.blind().map(ToString::to_string),
        sources: meter.sources().to_vec(),
        uncounted,
        strays: devices.strays(),
        console_loss: output.loss(devices.console()),
        vcpus: count,
        trace: operator.traced(),
        console: output.captured(),
    };
    // The vCPUs and the VM are dropped before guest memory is unmapped.
    drop(vcpus);
    drop(vm);
    Ok(result)
}

/// Marks the machine as wound up when it is dropped, also after an error.
struct MarkWoundUp<'a>(&'a Operator);

impl Drop for MarkWoundUp<'_> {
    fn drop(&mut self) {
        self.0.mark_wound_up();
    }
}

/// Starts the vCPUs and runs the event loop until the run is over, on a thread of its own, which can
/// do no more than the loop needs. The calling thread is the one that opens and writes files.
fn watch(
    event_loop: EventLoop<'_>,
    threads: &VcpuThreads,
) -> Result<(Ending, StallSummary, output::Output), ControlError> {
    let mut manager = EventManager::new().map_err(ControlError::Loop)?;
    let id = manager.add_subscriber(event_loop);
    let watching = move || {
        confinement::enter(ThreadKind::EventLoop);
        threads.run();
        loop {
            manager.run().map_err(ControlError::Loop)?;
            let event_loop = manager.subscriber_mut(id).map_err(ControlError::Loop)?;
            if let Some(ended) = event_loop.take_ending() {
                return ended;
            }
        }
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("events".to_owned());
        let thread = thread.spawn_scoped(scope, watching);
        let thread =
            thread.map_err(|e| ControlError::Prepare("start a thread for the events", e))?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Dumps of the vCPUs. A vCPU whose registers KVM does not give is left out.
fn dumps(vcpus: &[Vcpu], memory: &GuestMemoryMmap, stalled: &[Option<Stalled>]) -> Vec<VcpuDump> {
    vcpus
        .iter()
        .filter_map(|vcpu| {
            let stalled = stalled.get(vcpu.id() as usize).copied().flatten();
            let dump = VcpuDump::of(vcpu, memory).ok()?;
            Some(VcpuDump { stalled, ..dump })
        })
        .collect()
}

/// Why a vCPU is kept out of the guest, if it is.
fn stalled(threads: &VcpuThreads, id: u32) -> Option<Stalled> {
    match threads.state(id) {
        Ok((State::Stalled(stall), _)) => Some(stall),
        _ => None,
    }
}
