//! Who decides when the machine runs and when it is over: one event loop in the calling thread, and
//! what follows once it has ended. vCPUs are reached only through [`Crew`]; nothing here is
//! specific to x86.

mod bench;
mod ending;
mod error;
mod live;
pub mod operator;
mod output;
pub mod script;
pub mod socket;
mod stall;
mod tracer;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use event_manager::{EventManager, SubscriberOps};
use vm_memory::GuestMemoryMmap;

use crate::lab::Lab;
use crate::machine::Machine;
use crate::machine::devices::Strays;
use crate::machine::inspect::Standing;
use crate::machine::lifecycle::{Absence, Stall as Stalled, State};
use crate::machine::message::{Message, OnMessage};
use crate::machine::pause_latency::Latency;
use crate::machine::pin::Pins;
use crate::machine::points::Points;
use crate::machine::symbols::Symbols;
use crate::machine::threads::Crew;
use crate::machine::vcpu::Vcpu;
use crate::stats::sources::{Source, Sources};
use crate::stats::trace::Trace;
use crate::stats::window::{Meter, Window};

use bench::{Bench, Patience};
pub use ending::Ending;
pub use error::ControlError;
use live::Live;
pub use live::Screen;
use operator::{Equipment, Expected, Operator, Transit};
pub use output::Stream;
pub use stall::{Carried, NoSuchVcpu, Plan, Stall, StallError, Stalls, Steal, Stretch};
use stall::{Driver, Start};
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
pub struct Aftermath {
    /// What ended it.
    pub ending: Ending,
    /// What was counted.
    pub window: Window,
    /// How often and for how long each vCPU was paused, in order.
    pub absences: Vec<Absence>,
    /// How long that took from request to confirmation; `None` if nothing was paused.
    pub pause_latency: Option<Latency>,
    /// What became of the stalls that were to be.
    pub stalls: Carried,
    /// What the run was expected to break.
    pub expected: Expected,
    /// Where each vCPU stands.
    pub standings: Vec<Standing>,
    /// Why there are no statistics of KVM's, if there are none.
    pub blind: Option<String>,
    /// Who could have counted, if that was found out.
    pub sources: Vec<Source>,
    /// Why no tracepoints were counted although they could have been.
    pub uncounted: Option<String>,
    /// Accesses that no device knew.
    pub strays: Strays,
    /// What became of the guest's console output, if not all of it went where it should.
    pub console_loss: Option<String>,
    /// How many vCPUs the machine had.
    pub vcpus: u32,
    /// What the VMM itself did to IPIs.
    pub transit: Transit,
    /// What was traced, if anything was to be.
    pub trace: Option<Trace>,
    /// What the guest said, if that went nowhere.
    pub console: String,
}

/// What a run needs beside its machine.
#[derive(Debug)]
pub struct Setup<'a> {
    /// How long it may take.
    pub limits: Limits,
    /// What is to keep vCPUs out of the guest.
    pub stalls: &'a Stalls,
    /// Host CPUs to bind the vCPUs to.
    pub pins: Option<&'a Pins>,
    /// Where the guest's console goes.
    pub console: Stream,
    /// The points of the guest image at which CPUs can be held.
    pub points: Points,
    /// The functions of the guest image.
    pub symbols: Arc<Symbols>,
    /// The guest's command line.
    pub command_line: String,
    /// What to trace, from the start of the workload on.
    pub trace: Tracing,
    /// Where to show a live table of the vCPUs.
    pub watch: Option<Arc<dyn Screen>>,
    /// Who counts beside the VMM and can be believed, if that was found out.
    pub sources: Option<&'a Sources>,
}

/// Runs `machine` to its end. Its operator is handed to `attend` before the first vCPU enters the
/// guest.
///
/// # Errors
/// [`ControlError`] if the host does not let it run or does not let go of it. How the guest fared
/// is not an error: [`Aftermath`] says it.
pub fn run(
    machine: Machine,
    lab: &Lab,
    setup: Setup<'_>,
    attend: impl FnOnce(&Arc<Operator>),
) -> Result<Aftermath, ControlError> {
    let sources = setup.sources.map_or_else(Vec::new, |it| it.list.clone());
    let meter = Arc::new(Meter::new(&machine, lab.clone(), &sources));

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
    let start = Start::new().map_err(|e| ControlError::Prepare("create an eventfd", e))?;
    let start = Arc::new(start);
    let operator = Operator::new(Equipment {
        lab: lab.clone(),
        interrupts: vm.interrupts(),
        meter: Arc::clone(&meter),
        console: Arc::clone(devices.console()),
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
            meter.on_message(message);
            if message == Message::WorkloadStarted {
                start.announce();
            }
            operator.hear(vcpu, message)
        }
    });
    operator.take_over(Crew::new(
        vcpus,
        &devices,
        &memory,
        &on_message,
        setup.pins,
    )?);
    let mut uncounted = None;
    let ended = operator.with_machine(|crew| {
        if let Some(sources) = setup.sources {
            let counted = meter.count(&sources.tracepoints, crew.thread_ids());
            uncounted = counted.err().map(|error| error.to_string());
        }
        let stalls = Driver::new(setup.stalls, crew, &start)
            .map_err(|e| ControlError::Prepare("create a timer for stalls", e))?;
        let watchdog = setup
            .limits
            .watchdog
            .map(|limit| Watchdog::new(limit, crew, lab, devices.console(), &meter));
        let mut bench = Bench::new(
            crew,
            &operator,
            stalls,
            devices.console(),
            setup.console,
            Patience {
                timeout: setup.limits.timeout,
                watchdog,
            },
        )?;
        if let Some(screen) = setup.watch {
            let live = Live::new(crew, &operator, &meter, lab, screen)
                .map_err(|e| ControlError::Prepare("create a timer for the live table", e))?;
            bench.show(live);
        }
        attend(&operator);
        watch(bench, crew)
    });
    let _gone = Gone(&operator);
    // Whoever waits for the machine must hear that it is over, however that came.
    match &ended {
        Ok((ending, ..)) => operator.end(ending, ending.cuts_short()),
        Err(error) => operator.end(error, true),
    }
    let crew = operator.hand_back();
    let (ending, stalls, mut output) = ended?;

    let (absences, pause_latency) = (crew.absences(), crew.pause_latency());
    let stalled: Vec<_> = (0..count).map(|id| stalled(&crew, id)).collect();
    crew.suspend()?;
    let window = meter.window();
    let vcpus = crew.stop()?;
    output.finish(devices.console());
    let aftermath = Aftermath {
        ending,
        window,
        absences,
        pause_latency,
        stalls,
        standings: standings(&vcpus, &memory, &stalled),
        expected: operator.expectations(),
        transit: operator.transit(),
        blind: meter.blind().map(ToString::to_string),
        sources,
        uncounted,
        strays: devices.strays(),
        console_loss: output.loss(devices.console()),
        vcpus: count,
        trace: operator.traced(),
        console: output.kept(),
    };
    // KVM lets go of guest memory before it is unmapped.
    drop(vcpus);
    drop(vm);
    Ok(aftermath)
}

/// Says when the machine has been wound up, however that went.
struct Gone<'a>(&'a Operator);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Lets the vCPUs go and waits for the end.
fn watch(bench: Bench<'_>, crew: &Crew) -> Result<(Ending, Carried, output::Output), ControlError> {
    let mut manager = EventManager::new().map_err(ControlError::Loop)?;
    let id = manager.add_subscriber(bench);
    crew.run();
    loop {
        manager.run().map_err(ControlError::Loop)?;
        let bench = manager.subscriber_mut(id).map_err(ControlError::Loop)?;
        if let Some(ended) = bench.take_ending() {
            return ended;
        }
    }
}

/// Where the vCPUs stand. One that KVM does not let us look at is left out.
fn standings(
    vcpus: &[Vcpu],
    memory: &GuestMemoryMmap,
    stalled: &[Option<Stalled>],
) -> Vec<Standing> {
    vcpus
        .iter()
        .filter_map(|vcpu| {
            let stalled = stalled.get(vcpu.id() as usize).copied().flatten();
            let standing = Standing::of(vcpu, memory).ok()?;
            Some(Standing {
                stalled,
                ..standing
            })
        })
        .collect()
}

/// Why a vCPU is kept out of the guest, if it is.
fn stalled(crew: &Crew, id: u32) -> Option<Stalled> {
    match crew.state(id) {
        Ok((State::Stalled(stall), _)) => Some(stall),
        _ => None,
    }
}
