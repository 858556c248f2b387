//! A hypervisor as a laboratory bench for cross-CPU calls: boots one guest on as many vCPUs as
//! asked for, lets its workload run, counts what the inter-processor interrupts cost, and judges
//! from the guest's ledger whether every call ran exactly once where it had to.
//!
//! ```no_run
//! use std::time::Duration;
//! use vmm::{Config, Wait};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::new("target/guest.bin").vcpus(4).append("queue=filo workload=stress");
//! let machine = vmm::start(&config)?;
//! let operator = machine.operator();
//! operator.wait_started(Wait::up_to(Duration::from_secs(10)))?;
//!
//! // Keeps CPU 1 out of the guest, wherever it is. To the others it looks like a CPU with its
//! // interrupts off.
//! operator.pause(1)?;
//! let look = operator.look(1)?;
//! println!("CPU 1 is at {:#x}, in {}", look.dump.regs.rip, look.place);
//! operator.resume(1)?;
//!
//! let outcome = machine.wait()?;
//! println!("{}: {:?}", outcome.report.message, outcome.report.ipi);
//! # Ok(())
//! # }
//! ```
//!
//! `vmm/examples/` has this and more as whole programs.
//!
//! # What there is
//!
//! * [`Config`] says what to run: a guest image from a file or from bytes ([`Guest`]), and how.
//!   Everything but the guest has a default.
//! * [`start`] runs it on a thread of its own, and [`run`] in the calling one. The result is an
//!   [`Outcome`].
//! * The [`Operator`] drives it meanwhile, from any thread: pauses, holds and steps vCPUs, looks at
//!   them, tells the guest's CPUs what to do, holds IPIs on the wire, and waits for events.
//! * [`scenario::run`] has a script drive it, a [`control::socket::Server`] any program that
//!   connects to its socket.
//! * [`explore::explore`] searches the orders in which a few CPUs can take their steps for one that
//!   breaks something.
//! * [`bench::measure`] measures the times of IPIs and calls, and counts their exits.
//!
//! The steps of a run can also be taken one by one: [`machine::Machine::build`],
//! [`lab::Lab::prepare`], [`control::run`], [`verdict::judge`], [`verdict::Verdict::on`],
//! [`report::Report::new`]. A program that wants to carry the vCPUs itself does so with a
//! [`machine::threads::VcpuThreads`].
//!
//! # What it does to the process
//!
//! A machine takes threads, memory and files, and gives them back when it is over. Beyond that it
//! changes one thing: it handles one real-time signal, which makes vCPUs leave the guest; see
//! [`machine::kick`]. It refuses to start if the program has a handler for that signal already, and
//! [`machine::kick::use_signal`] chooses another. All else is left to the program:
//!
//! * Signals such as SIGINT. A program that catches one ends the machine with
//!   [`Operator::interrupt`].
//! * The limit on open files: a machine of hundreds of vCPUs needs hundreds of them. See
//!   [`machine::limits::raise`].
//! * Its log. What happens is told to [`tracing`]; who listens is for the program to decide. Without
//!   a listener nothing is formatted.
//! * Its standard streams. [`Config::console`] keeps what the guest prints, unless it is told where
//!   to write it.
//!
//! # Features
//!
//! `command`, on by default, adds what the `vmm` command needs to read its command line and to draw
//! on a terminal. A program does not need it: `default-features = false`.

#![warn(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make files"))]

pub mod bench;
pub mod closest;
mod config;
pub mod confinement;
pub mod control;
pub mod control_characters;
pub mod counted;
pub mod cpus;
pub mod duration;
pub mod explore;
pub mod gdb;
pub mod input;
pub mod kernel_log;
pub mod lab;
pub mod machine;
pub mod manifest;
pub mod page_size;
pub mod peers;
pub mod provenance;
pub mod report;
mod running;
pub mod scenario;
pub mod size;
pub mod stats;
pub mod table_style;
pub mod text;
pub mod unix_socket;
pub mod verdict;
mod waiting;
pub mod whole_file;
pub mod writable;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

pub use config::{Attendant, Config};
pub use control::operator::{Operator, OperatorError, Selection, Wait, Watch};
use control::socket::Server;
use explore::recorded::{self, NotRecorded};
pub use machine::guest::Guest;
use machine::initrd::Initrd;
use machine::layout::{Contents, Layout};
use machine::pin::{PinError, Pins};
use machine::points::Points;
use machine::symbols::Symbols;
use machine::{Machine, MachineError, Parts, boot, limits};
use manifest::Manifest;
use provenance::{Input, Provenance};
use report::{Own, Report, postmortem};
pub use running::{Running, start};
/// What the guest and the VMM have agreed on.
pub use shared;
use stats::meaning::Meanings;
use stats::sources::Kvm;
use stats::trace::Trace;
use stats::trace_filter::NotInTrace;
use stats::window::Window;
use tracing::info;
use verdict::{Kind, Verdict};

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended, and why that is said.
    pub verdict: Verdict,
    /// The options of the run as the guest says that it took them; `None` if it has not said.
    pub words: Option<BTreeMap<String, String>>,
    /// The figures, and the verdict with them.
    pub report: Report,
    /// Where the vCPUs stood, if the run did not end well; empty otherwise.
    pub post_mortem: String,
    /// What was traced, if anything was to be.
    pub trace: Option<Trace>,
    /// The guest image.
    pub guest: Guest,
    /// The guest's command line, the lab included.
    pub command_line: String,
    /// The counters, over the window that the report covers.
    pub window: Window,
    /// What the guest printed, with [`control::Stream::Captured`].
    pub console: String,
    /// The case of the run, if it was to be recorded.
    pub recorded: Option<Result<String, NotRecorded>>,
}

/// Why there was no run, or why it could not be carried to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No guest image.
    #[error("no guest image was named, on the command line or in boot()")]
    NoGuest,
    /// A number of vCPUs that no machine can have.
    #[error(
        "cannot make a machine of {0} vCPUs; ask for --vcpus 1 to {most}",
        most = shared::lab::MAX_CPUS
    )]
    Vcpus(u32),
    /// The machine cannot be built.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The lab cannot be written.
    #[error("cannot write the lab to guest memory")]
    Lab(#[source] vm_memory::GuestMemoryError),
    /// No memory for the lab of a guest that is told of none.
    #[error("cannot do without a lab in guest memory")]
    NoLab(#[source] lab::UntoldError),
    /// The host does not have the CPUs to which the vCPUs are to be bound.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A stall is planned for a vCPU that does not exist.
    #[error(transparent)]
    Stalls(#[from] control::NoSuchVcpu),
    /// The filter of the trace names what is not in a trace of this machine.
    #[error("--trace-filter: {0}")]
    TraceFilter(#[from] NotInTrace),
    /// No thread can be started for it.
    #[error("cannot start a thread for the machine")]
    Thread(#[source] std::io::Error),
    /// The event loop failed.
    #[error(transparent)]
    Control(#[from] control::ControlError),
}

impl Error {
    /// The exit status of the command: 2 if another option or image helps, 3 if the host is the
    /// reason.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Machine(error) if limits::are_reached(error) => 3,
            Self::NoGuest | Self::Vcpus(_) | Self::Stalls(_) | Self::TraceFilter(_) => 2,
            Self::Machine(error) if error.is_of_what_was_given() => 2,
            Self::Machine(_)
            | Self::Lab(_)
            | Self::NoLab(_)
            | Self::Pin(_)
            | Self::Thread(_)
            | Self::Control(_) => 3,
        }
    }
}

/// An error and its sources, on one line.
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

/// Boots the guest, runs its workload to the end in the calling thread, and reports.
///
/// # Errors
/// [`Error`] if that was not possible. A guest that fails or dies is no error: the [`Outcome`] says
/// so.
pub fn run(config: &Config) -> Result<Outcome, Error> {
    run_attended(config, None, |_| {})
}

/// As [`run`], but clients of `control` can drive the machine. The machine's operator is also
/// handed to `attend`, after [`Config::attendant`] has had it.
///
/// # Errors
/// As [`run`].
pub fn run_attended(
    config: &Config,
    control: Option<&Server>,
    attend: impl FnOnce(&Arc<Operator>),
) -> Result<Outcome, Error> {
    let begun = Instant::now();
    let pages = shared::lab::Layout::new(config.vcpus).map_err(|_| Error::Vcpus(config.vcpus))?;
    config.stalls.check(config.vcpus)?;
    let guest = config.guest.as_ref().ok_or(Error::NoGuest)?;
    let image = guest.open().map_err(MachineError::from)?;
    let points = Points::read(image.bytes()).map_err(MachineError::from)?;
    let manifest = Manifest::of(&image).map_err(MachineError::from)?;
    // A guest that says nothing of itself, such as Linux, knows of no lab.
    let knows_lab = manifest.is_some() || points.iter().next().is_some();
    let manifest = manifest.unwrap_or_default();
    let names: Vec<_> = points.iter().map(|point| point.name.clone()).collect();
    let meanings = Meanings::new(&names, &manifest);
    config.trace_filter.check(&meanings, config.vcpus)?;
    let initrd = config.initrd.as_deref().map(Initrd::open).transpose();
    let initrd = initrd.map_err(MachineError::from)?;
    let contents = Contents {
        image_end: image.end(),
        lab: if knows_lab { pages.size } else { 0 },
        initrd: initrd.as_ref().map_or(0, Initrd::length),
    };
    let layout = Layout::new(config.memory, config.vcpus, contents).map_err(MachineError::from)?;
    let lab_at = knows_lab.then_some(layout.lab.start);
    let command_line = boot::command_line(&config.append, lab_at).map_err(MachineError::from)?;
    let pins = config.pin.as_ref().map(Pins::new).transpose()?;
    let symbols = match &config.symbols {
        Some(path) => Symbols::from_file(image.bytes(), path).map_err(MachineError::from)?,
        None => Symbols::of(image.bytes()),
    };
    let symbols = Arc::new(symbols);
    let machine = Machine::build(&Parts {
        image: &image,
        vcpus: config.vcpus,
        layout: &layout,
        command_line: &command_line,
        initrd: initrd.as_ref(),
        is_pc: !knows_lab,
    })?;
    info!(
        "machine built: {} vCPUs, command line \"{command_line}\"",
        config.vcpus
    );
    let named = config.initrd.as_deref().zip(initrd.as_ref());
    let mut provenance = Provenance {
        initrd: named.map(|(path, initrd)| Input::new(path, initrd.bytes())),
        script: config.script.clone(),
        pin: config.pin.as_ref().map(ToString::to_string),
        ..Provenance::new(
            // Known when the sources have been tried.
            Kvm::Unknown,
            Input::new(guest.name(), image.file()),
            config.vcpus,
            &config.append,
        )
    };
    // It can be large, and is in the guest's memory by now.
    drop(initrd);
    let lab = match lab_at {
        Some(at) => lab::Lab::prepare(machine.memory.clone(), at, pages).map_err(Error::Lab)?,
        None => lab::Lab::untold(pages).map_err(Error::NoLab)?,
    };
    let lab = lab.knowing(Arc::new(manifest));
    let setup = control::Setup {
        limits: config.limits,
        stalls: &config.stalls,
        pins: pins.as_ref(),
        console: config.console,
        raw_console: config.raw_console,
        points,
        symbols: Arc::clone(&symbols),
        start: config.start_at.clone(),
        command_line: command_line.clone(),
        trace: config.trace,
        show: config.show.clone(),
        sources: config.sources.clone(),
    };
    let run_result = control::run(machine, &lab, setup, |operator| {
        if let Some(server) = control {
            server.attend(operator);
        }
        if let Some(attendant) = &config.attendant {
            attendant.attend(operator);
        }
        attend(operator);
    });
    if let Some(server) = control {
        server.leave();
    }
    let mut run_result = run_result?;
    if let Some(trials) = &config.sources {
        provenance.host.kvm = trials.result().kvm;
    }
    let judgement = verdict::judge(&run_result, &lab);
    let mut verdict = Verdict::on(&run_result, &judgement, config.expected_exit);
    let recorded = config.record.map(|most| {
        let besides: &[&str] = match verdict.kind {
            Kind::Stalled => &["hang"],
            Kind::Died => &["died"],
            _ => &[],
        };
        recorded::case(&lab, &judgement, besides, &config.append, most)
    });
    if verdict.kind == Kind::BadOptions {
        for (word, meant) in lab.manifest().mistyped(&config.append) {
            verdict.message += &format!("; did you mean \"{meant}\" by \"{word}\"?");
        }
    }
    info!("run ended: {}: {}", verdict.kind, verdict.message);
    let mut report = Report::new(&run_result, &lab, judgement, &verdict, provenance);
    let vectors = &lab.manifest().vectors;
    let post_mortem = describe(&run_result, &report, &symbols, vectors);
    // The last of the guest's memory.
    drop(lab);
    report.vmm = Some(Own {
        setup_seconds: (run_result.window.first_entry() - begun).as_secs_f64(),
        teardown_seconds: run_result.ended.elapsed().as_secs_f64(),
    });
    Ok(Outcome {
        words: report.provenance.words.clone(),
        verdict,
        report,
        post_mortem,
        trace: run_result.trace.take(),
        guest: guest.clone(),
        command_line,
        window: run_result.window,
        console: run_result.console,
        recorded,
    })
}

/// Where the vCPUs stood, if the run ended in such a way that this matters.
fn describe(
    run_result: &control::RunResult,
    report: &Report,
    symbols: &Symbols,
    vectors: &[manifest::Vector],
) -> String {
    use control::Ending;
    const BAD_MACHINE: u32 = shared::exit::ExitCode::BadMachine as u32;
    let died_on = match (&run_result.ending, report.result) {
        // Which CPUs came up, and where the others are, matters more than which CPU noticed.
        (
            Ending::GuestExit {
                code: BAD_MACHINE, ..
            },
            Kind::Died,
        ) => None,
        (Ending::Dead { vcpu, .. } | Ending::GuestExit { vcpu, .. }, Kind::Died) => Some(*vcpu),
        (Ending::Panic { cpu, .. }, Kind::Died) => *cpu,
        (_, Kind::Stalled | Kind::Interrupted) | (Ending::Script(_), _) => None,
        _ => return String::new(),
    };
    match died_on {
        Some(vcpu) => run_result
            .dumps
            .iter()
            .find(|dump| dump.vcpu == vcpu)
            .map(|dump| postmortem::death(dump, symbols))
            .unwrap_or_default(),
        None => postmortem::dumps(&run_result.dumps, symbols, vectors),
    }
}
