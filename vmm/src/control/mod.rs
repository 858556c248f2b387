//! Who decides when the machine runs and when it is over: one event loop in the calling thread, and
//! what follows once it has ended. vCPUs are reached only through [`Crew`]; nothing here is specific
//! to x86.

mod bench;
mod output;
mod signals;
mod stall;
mod watchdog;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use event_manager::{EventManager, SubscriberOps};
use shared::ports::Doorbell;
use vm_memory::GuestMemoryMmap;

use crate::lab::Lab;
use crate::machine::Machine;
use crate::machine::devices::Strays;
use crate::machine::inspect::Standing;
use crate::machine::lifecycle::Absence;
use crate::machine::pausing::Latency;
use crate::machine::pin::Pins;
use crate::machine::threads::{Crew, CrewError, OnDoorbell};
use crate::machine::vcpu::{Death, Vcpu};
use crate::stats::window::{Meter, Window};

use bench::Bench;
pub use output::Stream;
use signals::Signals;
pub use stall::{Carried, NoSuchVcpu, Plan, Stall, StallError, Stalls, Steal, Stretch};
use stall::{Driver, Start};
use watchdog::Watchdog;

/// How long a run may take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// End the run after this time.
    pub timeout: Option<Duration>,
    /// End the run when nothing has moved for this time.
    pub watchdog: Option<Duration>,
}

/// What ended a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A vCPU wrote this to the exit port.
    GuestExit {
        /// The vCPU.
        vcpu: u32,
        /// What it wrote.
        code: u32,
    },
    /// The guest could not go on.
    Dead {
        /// The vCPU on which.
        vcpu: u32,
        /// Why.
        death: Death,
    },
    /// A thread of the VMM panicked.
    Panicked {
        /// Its vCPU.
        vcpu: u32,
    },
    /// This signal.
    Signal(i32),
    /// The time limit.
    TimeOut(Duration),
    /// Nothing moved for this time.
    NoProgress(Duration),
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
    /// Where each vCPU stands.
    pub standings: Vec<Standing>,
    /// Why there are no statistics of KVM's, if there are none.
    pub blind: Option<String>,
    /// Accesses that no device knew.
    pub strays: Strays,
    /// What became of the guest's console output, if not all of it went where it should.
    pub console_loss: Option<String>,
    /// How many vCPUs the machine had.
    pub vcpus: u32,
}

/// Why a run could not be controlled.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A step of setting up the loop failed.
    #[error("cannot {0}")]
    Prepare(&'static str, #[source] io::Error),
    /// The loop failed.
    #[error("the event loop failed")]
    Loop(#[source] event_manager::Error),
    /// The threads failed.
    #[error(transparent)]
    Crew(#[from] CrewError),
}

/// Runs `machine` to its end, stalled as `stalls` say, with the guest's console on `console`.
///
/// # Errors
/// [`ControlError`] if the host does not let it run or does not let go of it. How the guest fared is
/// not an error: [`Aftermath`] says it.
pub fn run(
    machine: Machine,
    lab: &Lab,
    limits: Limits,
    stalls: &Stalls,
    pins: Option<&Pins>,
    console: Stream,
) -> Result<Aftermath, ControlError> {
    let meter = Arc::new(Meter::new(&machine, lab.clone()));
    // Before the threads, which inherit what is blocked.
    let signals = Signals::catch().map_err(|e| ControlError::Prepare("catch signals", e))?;

    let Machine {
        vcpus,
        vm,
        devices,
        memory,
    } = machine;
    let count = u32::try_from(vcpus.len()).unwrap_or(u32::MAX);
    let start = Start::new().map_err(|e| ControlError::Prepare("create an eventfd", e))?;
    let start = Arc::new(start);
    let on_doorbell: Arc<OnDoorbell> = Arc::new({
        let (meter, start) = (Arc::clone(&meter), Arc::clone(&start));
        move |_, doorbell| {
            meter.on_doorbell(doorbell);
            if doorbell == Doorbell::WorkloadStarted {
                start.announce();
            }
        }
    });
    let crew = Crew::new(vcpus, &devices, &on_doorbell, pins)?;
    let stalls = Driver::new(stalls, &crew, &start)
        .map_err(|e| ControlError::Prepare("create a timer for stalls", e))?;
    let watchdog = limits
        .watchdog
        .map(|limit| Watchdog::new(limit, &crew, lab, devices.console(), &meter));
    let bench = Bench::new(
        &crew,
        stalls,
        signals,
        devices.console(),
        console,
        limits.timeout,
        watchdog,
    )?;
    let (ending, stalls, mut output) = watch(bench, &crew)?;

    let (absences, pause_latency) = (crew.absences(), crew.pause_latency());
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
        standings: standings(&vcpus, &memory),
        blind: meter.blind().map(ToString::to_string),
        strays: devices.strays(),
        console_loss: output.loss(devices.console()),
        vcpus: count,
    };
    // KVM lets go of guest memory before it is unmapped.
    drop(vcpus);
    drop(vm);
    Ok(aftermath)
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
fn standings(vcpus: &[Vcpu], memory: &GuestMemoryMmap) -> Vec<Standing> {
    vcpus
        .iter()
        .filter_map(|vcpu| Standing::of(vcpu, memory).ok())
        .collect()
}
