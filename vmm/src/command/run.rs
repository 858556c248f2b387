//! `vmm [OPTIONS] GUEST`: boots a guest, or runs a script that boots guests, and reports.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{HumanBytes, HumanCount};
use regex::bytes::Regex;
use vmm::confinement;
use vmm::control::gdb::Server as DebugServer;
use vmm::control::script::Unasked;
use vmm::control::socket::Server;
use vmm::control::{Limits, PlannedStall, Show, Stalls, Steal, Tracing};
use vmm::cpus::CpuSet;
use vmm::explore::recorded::NotRecorded;
use vmm::gdb;
use vmm::machine::guest::Guest;
use vmm::provenance::Provenance;
use vmm::report::page::{self, Section};
use vmm::report::perfetto;
use vmm::stats::sources::{Sources, Trials};
use vmm::stats::trace::Trace;
use vmm::stats::trace_filter::{FilterPart, TraceFilter};
use vmm::verdict::ExpectedExit;
use vmm::whole_file::WholeFile;
use vmm::{Config, Outcome, duration, scenario};

use super::ctl::monitor::Commands;
use super::debugging::{file_of, listen};
use super::outputs::{Outputs, not_made};
use super::progress::Wanted;
use super::screen::{Terminal, can_draw};
use super::signals::{Drives, Signals, status_of};
use super::stats::{Form, Reports, spared};
use super::{Refused, chain, complain, installed};

/// What to run, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Guest image: an ELF file with a PVH entry note, or a Linux kernel (bzImage, vmlinux). A name without a folder is looked for in the
    /// current folder, in the folders of VMM_GUEST_PATH, separated by colons, and among what is
    /// installed. A script can name one itself [default: the installed guest.bin]
    pub guest: Option<PathBuf>,

    /// Number of vCPUs, 1 to 1024
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(shared::lab::MAX_CPUS)))]
    vcpus: u32,

    /// RAM in MiB [default: what the vCPUs need, 144 or more]
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,

    /// A file to place in the guest's memory, such as Linux's initramfs. There is no disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,

    /// A file that names the functions of the image, if it does not itself: the vmlinux of a kernel, or
    /// its System.map
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,

    /// Guest command line; the address of the lab is added to it, for a guest that has one
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        hide_default_value = true
    )]
    append: String,

    /// The workload starts with the first line on the guest's console that this regular expression
    /// matches: stalls, traces and counts begin there. A guest of the bench says so itself
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    start_at: Option<Regex>,

    /// The run passes only if it ends so: power-off, reset, or a number that the guest writes to the
    /// exit port
    #[arg(long, value_name = "HOW")]
    expect_exit: Option<ExpectedExit>,

    /// Have a scenario drive the machine, or machines; see docs/scenarios.md. --watchdog does not
    /// count while it does
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,

    /// Listen at this UNIX socket for clients that drive the machine; see docs/control-socket.md
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,

    /// Listen for gdb at this UNIX socket, or at a port of this host: tcp:127.0.0.1:1234. Each vCPU is a
    /// thread there; see docs/debugging.md
    #[arg(long, value_name = "ADDR")]
    gdb: Option<gdb::Address>,

    /// Have the machine wait for gdb before its first instruction
    #[arg(long, requires = "gdb")]
    gdb_wait: bool,

    /// A value for the script, such as away=stall. Can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = param, requires = "script")]
    param: Vec<(String, String)>,

    /// Form of the report. But with table the guest's console goes to standard error, unless
    /// --stats-file is given; see docs/formats.md
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Form::Table)]
    stats: Form,

    /// Write the report here instead of to standard output
    #[arg(long, value_name = "FILE")]
    stats_file: Option<PathBuf>,

    /// What becomes of control characters on the guest's console
    #[arg(long, value_name = "FORM", value_enum, default_value_t = ConsoleForm::Text)]
    console: ConsoleForm,

    /// Trace what happens from the start of the workload on, and write it here for ui.perfetto.dev;
    /// see docs/traces.md
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Write only some events to the trace: cpus=0-3, kinds=ipi,interrupt (or ipi,interrupt alone),
    /// vectors=many,0xfd. Can be repeated; an event has to pass all. The report is still of all; see
    /// docs/traces.md
    #[arg(long, value_name = "FILTER", requires = "trace")]
    trace_filter: Vec<FilterPart>,

    /// Write a page for a browser here, with the report and a picture of what happened; traces as
    /// --trace does. See docs/reports.md
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// If the run fails, write a case here for vmm explore and vmm reduce: of each CPU the calls that it
    /// made nearest to the failure. See docs/exploration.md
    #[arg(long, value_name = "FILE", conflicts_with_all = ["script", "control"])]
    record_case: Option<PathBuf>,

    /// How many calls of each CPU that case has
    #[arg(long, value_name = "N", default_value_t = 4, requires = "record_case",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    record_calls: u16,

    /// Show what each vCPU does and how fast while it runs, on standard error, which must be a
    /// terminal
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    progress: Wanted,

    /// Count KVM's tracepoints on the vCPUs' threads as well, as far as this user may, and try
    /// first who can be believed; see docs/costs.md
    #[arg(long)]
    tracepoints: bool,

    /// Bind the vCPUs to these host CPUs in turn, such as 0-2,5
    #[arg(long, value_name = "CPULIST")]
    pin: Option<CpuSet>,

    /// Keep a vCPU out of the guest, at a time after the start of its workload and for a time, such
    /// as cpu=1,at=10ms,for=5ms. Can be repeated
    #[arg(long, value_name = "STALL")]
    stall: Vec<PlannedStall>,

    /// Take vCPUs away at random, as a busy host does, from the start of the workload on, such as
    /// seed=7,mean=2ms,share=20%. Equal seeds make equal plans; cpus=0-3 spares the others
    #[arg(long, value_name = "STEAL")]
    steal: Option<Steal>,

    /// End the run after this time, such as 90, 90s or 500ms [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,

    /// End the run when nothing has moved for this time, 0 for never. Stalls do not count
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "30s")]
    watchdog: Duration,
}

/// `--console`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConsoleForm {
    /// They are spelled out, but for line ends and tabs, and so is what is not UTF-8
    Text,
    /// What the guest prints is written as it is, and can do anything to a terminal
    Raw,
}

fn param(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("not KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn pattern(text: &str) -> Result<Regex, regex::Error> {
    Regex::new(text)
}

impl Arguments {
    /// The files that its work needs.
    pub fn files(&self) -> confinement::Files {
        // A script names the images of its machines itself.
        let anywhere = self.script.as_ref().map(|_| PathBuf::from("/"));
        let named = [&self.guest, &self.initrd, &self.symbols]
            .into_iter()
            .flatten();
        let read = named.chain(&anywhere);
        let written = [
            &self.stats_file,
            &self.trace,
            &self.report,
            &self.record_case,
            &self.control,
        ];
        let debugger = file_of(self.gdb.as_ref());
        confinement::Files::new(read, written.into_iter().flatten().chain(debugger))
    }

    /// Listens for gdb, if it is to be served.
    ///
    /// # Errors
    /// [`Refused`] if it cannot listen there.
    pub fn debugger(&self) -> Result<Option<gdb::Listener>, Refused> {
        listen(self.gdb.as_ref())
    }

    /// Whether the kernel's tracepoints are counted.
    pub fn counts(&self) -> bool {
        self.tracepoints
    }

    /// Tries the sources of counts: tracepoints before the run, since each that is counted makes
    /// exits slower, and KVM's statistics beside it, unless it is run for the times in it.
    fn trials(&self) -> Trials {
        if self.tracepoints {
            return Sources::prove().into();
        }
        let trials = Trials::begin();
        if self.trace.is_some() || self.report.is_some() || self.pin.is_some() {
            trials.result();
        }
        trials
    }

    /// Has test results say that the run was refused before its inputs could be used, and returns
    /// why.
    fn refuse(&self, refused: Refused) -> Refused {
        let (script, guest) = (self.script.as_ref(), self.guest.as_ref());
        let outputs = Outputs::beside(script.into_iter().chain(guest));
        let path = self.stats_file.as_deref();
        // The file of another form is left as it is: there is no report.
        if !self.stats.is_of_tests() || path.is_some_and(|it| outputs.check_result(it).is_err()) {
            return refused;
        }
        let (script, guest) = (self.script.as_deref(), self.guest.as_deref());
        match Reports::new(self.stats, path, script, guest) {
            Ok(reports) => reports.refuse(refused),
            Err(error) => {
                complain(&format!("cannot write the report: {error}"));
                refused
            }
        }
    }

    fn config(
        &self,
        guest: Option<&Path>,
        signals: &Signals,
        debugger: Option<&Arc<DebugServer>>,
    ) -> Config {
        let config = Config {
            guest: guest.map(Guest::from),
            vcpus: self.vcpus,
            memory: self.memory,
            initrd: self.initrd.clone(),
            symbols: self.symbols.clone(),
            append: self.append.clone(),
            start_at: self.start_at.clone(),
            expected_exit: self.expect_exit,
            limits: Limits {
                timeout: self.timeout,
                watchdog: Some(self.watchdog).filter(|limit| *limit > Duration::ZERO),
            },
            stalls: Stalls {
                once: self.stall.clone(),
                steal: self.steal.clone(),
            },
            pin: self.pin.clone(),
            console: self.stats.console(self.stats_file.as_deref()),
            raw_console: self.console == ConsoleForm::Raw,
            trace: Tracing {
                timeline: self.trace.is_some() || self.report.is_some(),
                ..Tracing::NOTHING
            },
            trace_filter: self.trace_filter.iter().cloned().collect(),
            show: match (self.watch, self.progress.is_shown()) {
                (true, _) => Show::Table(Arc::new(Terminal::default())),
                (false, true) => Show::Line(Arc::new(Terminal::default())),
                (false, false) => Show::Nothing,
            },
            sources: Some(self.trials()),
            interrupted: Arc::clone(signals.interrupted()),
            record: (self.record_case.as_ref()).map(|_| usize::from(self.record_calls)),
            ..Config::default()
        };
        let by_signals = signals.attendant();
        let debugger = debugger.map_or_else(Weak::new, Arc::downgrade);
        config.attended_by(move |operator| {
            by_signals(operator);
            if let Some(debugger) = debugger.upgrade() {
                debugger.attend(operator);
            }
        })
    }
}

/// The script and the image that `arguments` name.
fn inputs(arguments: &Arguments) -> Result<(Option<PathBuf>, Option<PathBuf>), Refused> {
    let script = arguments.script.as_deref().map(installed::scenario);
    let script = script.transpose()?;
    let guest = match (&arguments.guest, &script) {
        // It can name an image itself, and otherwise says that there is none.
        (None, Some(_)) => installed::image_if_any(installed::GUEST),
        (named, _) => Some(installed::image(named.as_deref(), installed::GUEST)?),
    };
    Ok((script, guest))
}

/// Exit status if the report could not be written.
const NOT_REPORTED: u8 = 3;

/// Runs what `arguments` ask for, and returns the exit status. `debugger` is where it listens for gdb.
///
/// # Errors
/// [`Refused`] if that was not possible.
pub fn run(arguments: &Arguments, debugger: Option<gdb::Listener>) -> Result<u8, Refused> {
    if arguments.watch && !can_draw() {
        return Err(Refused {
            message: "--watch draws on a terminal, and standard error is none that can be drawn \
                      on; leave it out, or ask a machine with --control from elsewhere: vmm ctl \
                      SOCKET stats"
                .to_owned(),
            status: 2,
        });
    }
    let (script, guest) = inputs(arguments).map_err(|refused| arguments.refuse(refused))?;
    // Created first: a run of an hour should not end with a file that cannot be created.
    let named = [&guest, &script, &arguments.initrd, &arguments.symbols];
    let outputs = Outputs::beside(named.into_iter().flatten());
    let open = |name: &PathBuf| outputs.create(name);
    let stats_file = arguments.stats_file.as_deref();
    let mut by_others = stats_file.into_iter().chain(arguments.control.as_deref());
    by_others.try_for_each(|name| outputs.check(name))?;
    let mut reports = Reports::new(
        arguments.stats,
        stats_file,
        script.as_deref(),
        guest.as_deref(),
    )
    .map_err(|error| not_made(stats_file.unwrap_or_else(|| Path::new("-")), &error))?;
    let mut trace_file = arguments.trace.as_ref().map(open).transpose()?;
    let mut page_file = arguments.report.as_ref().map(open).transpose()?;
    let mut case_file = arguments.record_case.as_ref().map(open).transpose()?;
    let is_spared = |name: Option<&Path>| name.is_some_and(|name| outputs.is_spared(name));
    let mut status = 0;
    let mut outcomes = Vec::new();
    let report = |outcome: Outcome| {
        let mut own = outcome.report.exit_status;
        if is_spared(stats_file) {
            reports.spare();
        }
        if let Err(error) = reports.add(&outcome) {
            complain(&format!("cannot write the report: {error}"));
            own = if own == 0 { NOT_REPORTED } else { own };
        }
        if let Some(recorded) = &outcome.recorded
            && let Err(error) = write_case(recorded, case_file.take())
        {
            complain(&format!("cannot write the case: {error}"));
            own = if own == 0 { NOT_REPORTED } else { own };
        }
        if outcome.trace.is_some() || arguments.stats == Form::Prometheus {
            outcomes.push(outcome);
        }
        // Of several machines, the first that failed sets the status.
        status = if status == 0 { own } else { status };
    };
    // Before other threads are started, which would otherwise not block these signals.
    let signals = Signals::catch(match script {
        Some(_) => Drives::Script,
        None => Drives::Nothing,
    })?;
    let control = arguments.control.as_deref().map(Server::bind).transpose();
    let control = match control {
        Ok(control) => control,
        Err(error) => {
            return Err(reports.refuse(Refused::of(chain(&error), &error)));
        }
    };
    let debugger = debugger.map(|listener| serve_debugger(listener, arguments.gdb_wait));
    let debugger = debugger.transpose()?;
    let config = arguments.config(guest.as_deref(), &signals, debugger.as_ref());
    let refused = match &script {
        None => vmm::run_attended(&config, control.as_ref(), |_| {})
            .map(report)
            .err()
            .map(|error| Refused {
                message: chain(&error),
                status: error.exit_status(),
            }),
        Some(script) => {
            let params = arguments.param.iter().cloned().collect();
            let may_boot = |image: &Path| outputs.spare(image);
            let unasked = |it: &Unasked| complain(&it.to_string());
            let control = control.as_ref();
            scenario::run(script, &config, params, control, may_boot, report, unasked)
                .err()
                .map(|error| Refused {
                    message: chain(&error),
                    status: match signals.interrupted().load(Ordering::Relaxed) {
                        0 => error.exit_status(),
                        signal => status_of(signal),
                    },
                })
        }
    };
    // There is nothing left to debug.
    drop(debugger);
    // There are no more machines: from here on a signal ends the process at once, even while files
    // are written.
    drop(signals);
    let traces: Vec<_> = outcomes
        .iter()
        .filter_map(|it| Some((it.trace.as_ref()?, &it.report.provenance)))
        .collect();
    // What never came to a machine leaves the files of an earlier run as they are. A new page says
    // why there was none.
    if refused.is_some() && outcomes.is_empty() {
        trace_file.take_if(|file| file.replaces_another());
        page_file.take_if(|file| file.replaces_another());
    }
    let why = refused.as_ref().map(|it| it.message.as_str());
    if is_spared(stats_file) {
        reports.spare();
    }
    let unless_spared = |name: Option<&Path>| match is_spared(name) {
        true => Err(spared()),
        false => Ok(()),
    };
    let (trace_name, page_name) = (arguments.trace.as_deref(), arguments.report.as_deref());
    let written = [
        (
            "report",
            stats_file,
            Some(reports.finish(&outcomes, refused.as_ref())),
        ),
        (
            "trace",
            trace_name,
            trace_file.map(|file| {
                unless_spared(trace_name)?;
                write_trace(file, &traces, &config.trace_filter)
            }),
        ),
        (
            "page",
            page_name,
            page_file.map(|file| {
                unless_spared(page_name)?;
                write_page(file, &outcomes, why)
            }),
        ),
    ];
    for (what, name, result) in written {
        if let Some(Err(error)) = result {
            complain(&format!("cannot write the {what}: {error}"));
            // That the script boots what is to be written has a status of its own.
            if status == 0 && (refused.is_none() || !is_spared(name)) {
                status = NOT_REPORTED;
            }
        }
    }
    match refused {
        None => Ok(status),
        Some(refused) => Err(Refused {
            status: if status == 0 { refused.status } else { status },
            ..refused
        }),
    }
}

/// Serves gdb at `listener`, and says where.
fn serve_debugger(listener: gdb::Listener, waits: bool) -> Result<Arc<DebugServer>, Refused> {
    let does = if waits { "waits" } else { "listens" };
    complain(&format!(
        "{does} for gdb: target remote {}",
        listener.address()
    ));
    let server = DebugServer::new(listener, waits, Arc::new(Commands));
    server.map(Arc::new).map_err(|error| Refused {
        message: format!("cannot serve gdb: {error}"),
        status: 3,
    })
}

/// Writes the case that was recorded, or says why there is none.
fn write_case(recorded: &Result<String, NotRecorded>, file: Option<WholeFile>) -> io::Result<()> {
    match (recorded, file) {
        (Ok(case), Some(file)) => file.write(|out| out.write_all(case.as_bytes())),
        (Ok(_), None) => Ok(()),
        (Err(why), _) => {
            complain(&why.to_string());
            Ok(())
        }
    }
}

/// Writes the trace, and says how large it is.
fn write_trace(
    file: WholeFile,
    traces: &[(&Trace, &Provenance)],
    filter: &TraceFilter,
) -> io::Result<()> {
    let mut written = perfetto::Written::default();
    let any = !traces.is_empty();
    file.write(|mut out| {
        written = perfetto::write(&mut out, traces, filter)?;
        Ok(())
    })?;
    let (events, bytes) = (HumanCount(written.events), HumanBytes(written.bytes));
    let left_out = match written.left_out {
        0 => String::new(),
        left_out => format!("; {} left out by --trace-filter", HumanCount(left_out)),
    };
    let noun = if written.events == 1 {
        "event"
    } else {
        "events"
    };
    if any {
        complain(&format!(
            "the trace has {events} {noun} in {bytes}{left_out}"
        ));
    }
    Ok(())
}

fn section(outcome: &Outcome) -> Section<'_> {
    Section {
        report: &outcome.report,
        post_mortem: &outcome.post_mortem,
        command_line: &outcome.command_line,
        trace: outcome.trace.as_ref(),
    }
}

fn write_page(file: WholeFile, outcomes: &[Outcome], refused: Option<&str>) -> io::Result<()> {
    let machines: Vec<_> = outcomes.iter().map(section).collect();
    file.write(|mut out| page::write(&mut out, &machines, refused))
}
