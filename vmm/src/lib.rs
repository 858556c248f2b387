//! A hypervisor as a laboratory bench for cross-CPU calls: boots one guest on as many vCPUs as asked
//! for, lets its workload run, counts what the inter-processor interrupts cost, and judges from the
//! guest's ledger whether every call ran exactly once where it had to.
//!
//! [`run`] does all of it; [`scenario::run`] has a script decide what happens. Its steps can also be taken one by one: [`machine::Machine::build`],
//! [`lab::Lab::prepare`], [`control::run`], [`report::Report::new`]. A program that wants to pause vCPUs
//! itself carries the machine with a [`machine::threads::Crew`]; see [`machine::pausing`].

pub mod bench;
pub mod control;
pub mod cpus;
pub mod duration;
pub mod explore;
pub mod lab;
pub mod machine;
pub mod manifest;
pub mod provenance;
pub mod report;
pub mod scenario;
pub mod stats;
pub mod text;
pub mod whole_file;

use std::path::PathBuf;
use std::sync::Arc;

use control::operator::Operator;
use control::socket::Server;
use cpus::CpuSet;
use machine::image::Image;
use machine::layout::Layout;
use machine::pin::{PinError, Pins};
use machine::points::Points;
use machine::symbols::Symbols;
use machine::{Machine, MachineError, Parts, boot};
use manifest::Manifest;
use provenance::{Input, Provenance};
use report::{Kind, Report, postmortem};
use stats::sources::{Kvm, Sources};
use stats::trace::Trace;
use stats::window::Window;

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The guest image. Only a scenario can do without, if its script names one.
    pub guest: Option<PathBuf>,
    /// Number of vCPUs, 1 to 1024.
    pub vcpus: u32,
    /// MiB of RAM; `None` for as much as the vCPUs need.
    pub memory: Option<u64>,
    /// The guest's command line, to which the lab is added.
    pub append: String,
    /// How long it may take.
    pub limits: control::Limits,
    /// What is to keep vCPUs out of the guest.
    pub stalls: control::Stalls,
    /// Host CPUs to bind the vCPUs to, in turn; `None` to let them wander.
    pub pin: Option<CpuSet>,
    /// Where the guest's console goes.
    pub console: control::Stream,
    /// What to trace, from the start of the workload on.
    pub trace: control::Tracing,
    /// Whether to show a live table of the vCPUs on standard error, if that is a terminal.
    pub watch: bool,
    /// Who counts beside the VMM itself, and can be believed; `None` spares finding out, and then nothing of what
    /// anybody else counts is told.
    pub sources: Option<Arc<Sources>>,
    /// The script that drives it, if one does.
    pub script: Option<Input>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// The figures and the verdict.
    pub report: Report,
    /// Where the vCPUs stood, if the run did not end well.
    pub post_mortem: String,
    /// What was traced, if anything was to be.
    pub trace: Option<Trace>,
    /// The guest image.
    pub guest: PathBuf,
    /// The guest's command line, the lab included.
    pub command_line: String,
    /// The counters over what the report covers.
    pub window: Window,
    /// What the guest said, with [`control::Stream::Kept`].
    pub console: String,
}

/// Why there was no run, or none that could be brought to an end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No guest image.
    #[error("no guest image was named, on the command line or in boot()")]
    NoGuest,
    /// A number of vCPUs that no machine has.
    #[error("cannot make a machine of {0} vCPUs; ask for --vcpus 1 to {most}", most = shared::lab::MAX_CPUS)]
    Vcpus(u32),
    /// No machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// No lab.
    #[error("cannot write the lab to guest memory")]
    Lab(#[source] vm_memory::GuestMemoryError),
    /// No such host CPUs.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// No such vCPU to stall.
    #[error(transparent)]
    Stalls(#[from] control::NoSuchVcpu),
    /// No end.
    #[error(transparent)]
    Control(#[from] control::ControlError),
}

impl Error {
    /// The status with which the command ends: 2 if the user can mend it with another option or
    /// image, 3 if it is the host's.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NoGuest | Self::Vcpus(_) | Self::Stalls(_) => 2,
            Self::Machine(error) if error.is_of_what_was_given() => 2,
            Self::Machine(_) | Self::Lab(_) | Self::Pin(_) | Self::Control(_) => 3,
        }
    }
}

/// An error and what it comes from, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some messages contain their cause already.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Boots the guest, runs its workload to the end, and reports.
///
/// # Errors
/// [`Error`] if that was not possible. A guest that fails or dies is no error: [`Outcome`] says it.
pub fn run(config: &Config) -> Result<Outcome, Error> {
    run_attended(config, None, |_| {})
}

/// As [`run`], with clients of `control` to drive the machine. Its operator is also handed to `attend`, before
/// its first vCPU enters the guest.
///
/// # Errors
/// As [`run`].
pub fn run_attended(
    config: &Config,
    control: Option<&Server>,
    attend: impl FnOnce(&Arc<Operator>),
) -> Result<Outcome, Error> {
    let pages = shared::lab::Layout::new(config.vcpus).map_err(|_| Error::Vcpus(config.vcpus))?;
    config.stalls.check(config.vcpus)?;
    let guest = config.guest.as_ref().ok_or(Error::NoGuest)?;
    let image = Image::open(guest).map_err(MachineError::from)?;
    let points = Points::read(image.bytes()).map_err(MachineError::from)?;
    let manifest = Manifest::of(&image).map_err(MachineError::from)?;
    let layout = Layout::new(config.memory, config.vcpus, image.end(), pages.size)
        .map_err(MachineError::from)?;
    let command_line =
        boot::command_line(&config.append, layout.lab.start).map_err(MachineError::from)?;
    let pins = config.pin.as_ref().map(Pins::new).transpose()?;
    let machine = Machine::build(&Parts {
        image: &image,
        vcpus: config.vcpus,
        layout: &layout,
        command_line: &command_line,
    })?;
    let kvm = config
        .sources
        .as_ref()
        .map_or(Kvm::Unknown, |sources| sources.kvm);
    let provenance = Provenance {
        script: config.script.clone(),
        ..Provenance::new(
            kvm,
            Input::new(guest, image.bytes()),
            config.vcpus,
            &config.append,
        )
    };
    let lab = lab::Lab::prepare(machine.memory.clone(), layout.lab.start, pages)
        .map_err(Error::Lab)?
        .knowing(Arc::new(manifest.unwrap_or_default()));
    let symbols = Arc::new(Symbols::read(image.bytes()));
    let setup = control::Setup {
        limits: config.limits,
        stalls: &config.stalls,
        pins: pins.as_ref(),
        console: config.console,
        points,
        symbols: Arc::clone(&symbols),
        command_line: command_line.clone(),
        trace: config.trace,
        watch: config.watch,
        sources: config.sources.as_deref(),
    };
    let aftermath = control::run(machine, &lab, setup, |operator| {
        if let Some(server) = control {
            server.attend(operator);
        }
        attend(operator);
    });
    if let Some(server) = control {
        server.leave();
    }
    let mut aftermath = aftermath?;
    let report = Report::new(&aftermath, &lab, provenance);
    let post_mortem = describe(&aftermath, &report, &symbols);
    Ok(Outcome {
        report,
        post_mortem,
        trace: aftermath.trace.take(),
        guest: guest.clone(),
        command_line,
        window: aftermath.window,
        console: aftermath.console,
    })
}

/// What there is to say about the vCPUs of a run that ended as it did.
fn describe(aftermath: &control::Aftermath, report: &Report, symbols: &Symbols) -> String {
    use control::Ending;
    const BAD_MACHINE: u32 = shared::exit::ExitCode::BadMachine as u32;
    let died_on = match (&aftermath.ending, report.result) {
        // Which CPUs came up, and where the others are, matters more than who noticed.
        (
            Ending::GuestExit {
                code: BAD_MACHINE, ..
            },
            Kind::Died,
        ) => None,
        (Ending::Dead { vcpu, .. } | Ending::GuestExit { vcpu, .. }, Kind::Died) => Some(*vcpu),
        (_, Kind::Stalled | Kind::Interrupted) | (Ending::Script(_), _) => None,
        _ => return String::new(),
    };
    match died_on {
        Some(vcpu) => aftermath
            .standings
            .iter()
            .find(|standing| standing.vcpu == vcpu)
            .map(|standing| postmortem::death(standing, symbols))
            .unwrap_or_default(),
        None => postmortem::standings(&aftermath.standings, symbols),
    }
}
