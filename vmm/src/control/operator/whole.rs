//! What an operator can ask of the machine as a whole: to pause all vCPUs, its figures and its
//! trace, what is expected of it, and how it ends.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shared::ledger::{CallId, Lane};

use super::{Operator, OperatorError, Wait};
use crate::control::ending::Ending;
use crate::cpus::CpuSet;
use crate::kernel_log::ComplaintKind;
use crate::lab::oracles::{self, NoSuchOracle};
use crate::lab::{CpuCounts, Record};
use crate::machine::lifecycle::Stall;
use crate::machine::pause_error::PauseError;
use crate::stats::window::Window;

/// Extra time per CPU to finish, for many CPUs on few processors of the host. A thousand CPUs take
/// 5 s where ring 0 is emulated.
const FINISHING: Duration = Duration::from_millis(50);

/// The figures of a running machine at one moment.
#[derive(Debug)]
pub struct LiveFigures {
    /// Exits and KVM's statistics, since the start of the workload or of the machine.
    pub window: Window,
    /// The counts of the guest's CPUs, in order.
    pub counted: Vec<CpuCounts>,
}

impl Operator {
    /// Number of vCPUs.
    pub fn cpus(&self) -> u32 {
        self.lab.cpus()
    }

    /// Whether the guest was told of a lab.
    pub fn has_lab(&self) -> bool {
        self.lab.is_told()
    }

    /// The value of `key` on the guest's command line, if it is there. The last one counts.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.command_line
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .next_back()
    }

    /// Pauses every vCPU that has not exited, and waits for the confirmations.
    ///
    /// # Errors
    /// As for one vCPU. None is paused then.
    pub fn pause_all(&self) -> Result<(), OperatorError> {
        let text = || "pauses all CPUs".to_owned();
        let doing = self.recorder.order(None, Stall::Paused, text);
        doing.attempt(|| self.with_threads(|threads| Ok(threads.pause_all()?)))
    }

    /// Undoes one pause or hold of every vCPU that has one.
    ///
    /// # Errors
    /// [`OperatorError::Over`], or a vCPU does not run on.
    pub fn resume_all(&self) -> Result<(), OperatorError> {
        let doing = self.recorder.begin(|| "resumes all CPUs".to_owned());
        doing.attempt(|| {
            self.disarm_functions(None)?;
            (0..self.cpus()).for_each(|cpu| self.goes_on(cpu));
            self.with_threads(|threads| Ok(threads.resume_all()?))
        })
    }

    /// The figures now.
    pub fn figures(&self) -> LiveFigures {
        LiveFigures {
            window: self.meter.window(),
            counted: self.lab.counted().collect(),
        }
    }

    /// Turns the trace on or off.
    ///
    /// # Errors
    /// [`OperatorError::NoTrace`] if the machine was started without one.
    pub fn trace(&self, on: bool) -> Result<(), OperatorError> {
        let turned = if on { "on" } else { "off" };
        let doing = self.recorder.begin(|| format!("turns the trace {turned}"));
        doing.attempt(|| self.turn_trace(on))
    }

    pub(super) fn turn_trace(&self, on: bool) -> Result<(), OperatorError> {
        let tracer = self.tracer.as_ref().ok_or(OperatorError::NoTrace)?;
        let points = if on { tracer.points_when_on() } else { &[] };
        self.watches.trace(points);
        tracer.turn(on);
        Ok(())
    }

    /// The record of a call, unless it was complete and its place has been used again.
    pub fn record(&self, call: CallId) -> Option<Record> {
        self.lab.record(call)
    }

    /// The record of the call with this name, as [`Operator::record`].
    pub fn record_named(&self, source: u32, lane: Lane, sequence: u64) -> Option<Record> {
        self.lab.record_named(source, lane, sequence)
    }

    /// Expects the oracle of that name to find something.
    ///
    /// # Errors
    /// [`NoSuchOracle`] lists the oracles there are.
    pub fn must_break(&self, oracle: &str) -> Result<(), NoSuchOracle> {
        let doing = self
            .recorder
            .begin(|| format!("expects {oracle} to find something"));
        doing.attempt(|| {
            self.check_oracle(oracle)?;
            self.expected().must(oracle);
            Ok(())
        })
    }

    /// Checks that there is such an oracle: one of the guest's and of the VMM's, or, where there is
    /// no lab, of the guest's kernel.
    fn check_oracle(&self, oracle: &str) -> Result<(), NoSuchOracle> {
        match self.lab.is_told() {
            true => oracles::check(self.manifest(), oracle),
            false => oracles::check_among(&ComplaintKind::ALL.map(ComplaintKind::name), oracle),
        }
    }

    /// Allows the oracle of that name to find something.
    ///
    /// # Errors
    /// As [`Operator::must_break`].
    pub fn may_break(&self, oracle: &str) -> Result<(), NoSuchOracle> {
        let doing = self
            .recorder
            .begin(|| format!("lets {oracle} find something"));
        doing.attempt(|| {
            self.check_oracle(oracle)?;
            self.expected().may(oracle);
            Ok(())
        })
    }

    /// Sets the CPUs that take no part in the end of the run. This replaces an earlier set.
    ///
    /// # Errors
    /// [`OperatorError::Pause`] if there is no such CPU.
    pub fn abandon(&self, cpus: CpuSet) -> Result<(), OperatorError> {
        let doing = self.recorder.begin(|| format!("abandons {}", cpus.noun()));
        doing.attempt(|| {
            cpus.iter().try_for_each(|cpu| self.check_is_cpu(cpu))?;
            self.expected().abandoned = cpus;
            Ok(())
        })
    }

    /// Whether the guest takes commands, the one to finish included. It says so when its workload
    /// starts.
    pub fn takes_commands(&self) -> bool {
        self.lab.takes_commands()
    }

    /// Releases everything, and ends the workload of a guest that takes commands: every CPU except
    /// the abandoned ones is told to finish, the guest makes its final checks, and the machine
    /// ends. Beside the limit, each CPU adds a little time for that.
    ///
    /// # Errors
    /// If a CPU has not finished within the limit, the wire is not empty, or the guest takes no
    /// commands.
    pub fn finish(&self, wait: Wait<'_>) -> Result<(), OperatorError> {
        let doing = self.recorder.begin(|| "finishes the machine".to_owned());
        doing.attempt(|| {
            let wait = wait.begun(FINISHING * self.cpus());
            self.check_not_over()?;
            if !self.started.load(Ordering::Acquire) {
                // A CPU that is held before the workload has started keeps it from starting.
                self.let_go()?;
            }
            self.check_takes_commands(wait)?;
            self.let_go()?;
            let finishing = self.taking_part();
            let command = self.manifest().ending(finishing.clone());
            let command = command.ok_or(OperatorError::NoEnding)?;
            for cpu in finishing.iter() {
                match self.post(cpu, &command, wait) {
                    // The guest does not wait for CPUs that are offline, and can be over before they
                    // are told.
                    Err(OperatorError::Over(_)) if finishing.iter().next() != Some(cpu) => break,
                    told => _ = told?,
                }
            }
            let all = finishing.noun();
            let what = || format!("the end of the guest, whose {all} were told to finish");
            self.wait(wait, what, || self.over().map(|_| ()))
        })
    }

    /// Releases every vCPU except the abandoned ones, removes their watches and breakpoints, and
    /// holds no further IPIs.
    ///
    /// # Errors
    /// [`OperatorError::WireNotEmpty`]: IPIs that are held on the wire have to be released or lost
    /// on purpose.
    pub fn let_go(&self) -> Result<(), OperatorError> {
        let in_flight = self.in_flight();
        let count = in_flight.len();
        if let Some(first) = in_flight.into_iter().next() {
            return Err(OperatorError::WireNotEmpty { count, first });
        }
        // An IPI that was sent since the check is delivered by this.
        self.wire_release_all(None)?;
        for cpu in self.taking_part().iter() {
            // Disarmed first, so that it is not held at a point again.
            match self.disarm(cpu) {
                Err(OperatorError::Pause(PauseError::Exited { .. })) => continue,
                disarmed => disarmed?,
            }
            self.with_threads(|threads| Ok(threads.let_go(cpu)?))?;
        }
        Ok(())
    }

    /// The CPUs that are not abandoned.
    fn taking_part(&self) -> CpuSet {
        let all: CpuSet = (0..self.cpus()).collect();
        all.without(&self.expected().abandoned)
    }

    /// Waits until the guest's workload has started, so that all its CPUs are up.
    ///
    /// # Errors
    /// If it has not started within the limit.
    pub fn wait_started(&self, wait: Wait<'_>) -> Result<(), OperatorError> {
        let what = || "the start of the guest's workload".to_owned();
        self.wait(wait, what, || {
            self.started.load(Ordering::Acquire).then_some(())
        })
    }

    /// Whether the guest's workload has started.
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// Ends the machine now, whatever its CPUs do.
    pub fn quit(&self) {
        self.end_as(Ending::Quit);
    }

    /// As [`Operator::quit`], because of signal number `signal`. The program has to catch the
    /// signal.
    pub fn interrupt(&self, signal: i32) {
        self.end_as(Ending::Signal(signal));
    }

    /// Waits until the machine has ended. Only the limits of the run bound this wait.
    pub fn wait_end(&self) {
        while self.ended.get().is_none() {
            let soon = Instant::now() + Duration::from_secs(1);
            self.notifier.wait(soon, || self.ended.get().map(|_| ()));
        }
    }

    /// Adds a line to the guest's console, in order with the guest's output.
    pub fn say(&self, text: &str) {
        let _doing = self.recorder.begin(|| format!("prints {text}"));
        self.console.add(&format!("{text}\n"));
    }

    /// Notes something for the trace, as done now.
    pub(in crate::control) fn note(&self, text: impl FnOnce() -> String) {
        drop(self.recorder.begin(text));
    }

    /// Says whether a script drives the machine from beginning to end, so that the watchdog lets it
    /// stand still.
    pub fn drive(&self, driven: bool) {
        self.driven.store(driven, Ordering::Relaxed);
    }

    /// How the machine ended, if it has ended.
    pub fn over(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }

    /// Whether the machine is over and has been wound up: none of its threads runs any more.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// How the machine ended, if it was cut short from outside: by a signal, a limit or a request.
    /// A caller that was going to do more, also with further machines, should stop then.
    pub fn cut_short(&self) -> Option<&str> {
        self.over()
            .filter(|_| self.cut_short.load(Ordering::Acquire))
    }
}
