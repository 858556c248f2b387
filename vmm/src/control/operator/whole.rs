//! What an operator can ask of the machine as a whole: all its vCPUs at once, its figures and its
//! trace, what is expected of it, and how it comes to its end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shared::ledger::CallId;

use super::{Operator, OperatorError, Wait};
use crate::control::ending::Ending;
use crate::cpus::CpuSet;
use crate::lab::oracles::{self, NoSuchOracle};
use crate::lab::{CpuCounts, Record};
use crate::machine::pause_error::PauseError;
use crate::stats::window::Window;

/// How long a CPU may take to finish, if all of them are on few processors of the host. A thousand
/// take 5 s where the guest's code is emulated.
const FINISHING: Duration = Duration::from_millis(50);

/// The figures of a machine at one moment.
#[derive(Debug)]
pub struct LiveFigures {
    /// Exits and KVM's statistics, since the start of the workload or of the machine.
    pub window: Window,
    /// What the CPUs of the guest have counted, in order.
    pub counted: Vec<CpuCounts>,
}

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
        self.with_threads(|threads| Ok(threads.pause_all()?))
    }

    /// Undoes one pause or hold of every vCPU that has one.
    ///
    /// # Errors
    /// [`OperatorError::Over`], or one that does not go on.
    pub fn resume_all(&self) -> Result<(), OperatorError> {
        self.with_threads(|threads| Ok(threads.resume_all()?))
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
        let tracer = self.tracer.as_ref().ok_or(OperatorError::NoTrace)?;
        let points = if on { tracer.points_when_on() } else { &[] };
        self.watches.trace(points);
        tracer.turn(on);
        Ok(())
    }

    /// The record of a call, unless it was complete long ago and its place is taken.
    pub fn record(&self, call: CallId) -> Option<Record> {
        self.lab.record(call)
    }

    /// Says that the oracle of that name has to find something.
    ///
    /// # Errors
    /// [`NoSuchOracle`] lists those there are.
    pub fn must_break(&self, oracle: &str) -> Result<(), NoSuchOracle> {
        oracles::check(self.manifest(), oracle)?;
        self.expected().must(oracle);
        Ok(())
    }

    /// Says that the oracle of that name may find something.
    ///
    /// # Errors
    /// As [`Operator::must_break`].
    pub fn may_break(&self, oracle: &str) -> Result<(), NoSuchOracle> {
        oracles::check(self.manifest(), oracle)?;
        self.expected().may(oracle);
        Ok(())
    }

    /// Says which CPUs take no part in the end. Those that were named before do again.
    ///
    /// # Errors
    /// [`OperatorError::Pause`] if there is no such CPU.
    pub fn abandon(&self, cpus: CpuSet) -> Result<(), OperatorError> {
        cpus.iter().try_for_each(|cpu| self.check_is_cpu(cpu))?;
        self.expected().abandoned = cpus;
        Ok(())
    }

    /// Whether the guest waits to be told what to do, and when to finish. It knows when its
    /// workload starts.
    pub fn takes_commands(&self) -> bool {
        self.lab.takes_commands()
    }

    /// Lets all go and ends the workload of a guest that takes commands: every CPU, but for those
    /// that are left behind, finishes, the guest looks for what is out of order, and the machine
    /// ends by that. Each CPU has a little time for it beside the limit.
    ///
    /// # Errors
    /// If a CPU has not finished within the limit, if the wire is not empty, or the guest takes no
    /// commands.
    pub fn finish(&self, wait: Wait<'_>) -> Result<(), OperatorError> {
        let wait = wait.begun(FINISHING * self.cpus());
        self.check_not_over()?;
        if !self.started.load(Ordering::Acquire) {
            // One that is held before the workload has started keeps it from starting.
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
    }

    /// Lets all go that has been held, vCPUs but for those that are left behind, and IPIs that are
    /// to be held from now on; nothing will be held that was to be.
    ///
    /// # Errors
    /// [`OperatorError::WireNotEmpty`]: what is held on the wire is not delivered by itself.
    pub fn let_go(&self) -> Result<(), OperatorError> {
        let in_flight = self.in_flight();
        if let Some(first) = in_flight.first().copied() {
            let count = in_flight.len();
            return Err(OperatorError::WireNotEmpty { count, first });
        }
        // Nobody holds IPIs any more; one that was sent since is delivered.
        self.wire_release_all()?;
        for cpu in self.taking_part().iter() {
            // First, so that it can come to no point on its way.
            match self.disarm(cpu) {
                Err(OperatorError::Pause(PauseError::Exited { .. })) => continue,
                disarmed => disarmed?,
            }
            self.with_threads(|threads| Ok(threads.let_go(cpu)?))?;
        }
        Ok(())
    }

    /// The CPUs that are not left behind.
    fn taking_part(&self) -> CpuSet {
        let all: CpuSet = (0..self.cpus()).collect();
        all.without(&self.expected().abandoned)
    }

    /// Waits until the guest's workload has started, so that all its CPUs are up.
    ///
    /// # Errors
    /// If it has not within the limit.
    pub fn wait_started(&self, wait: Wait<'_>) -> Result<(), OperatorError> {
        let what = || "the start of the guest's workload".to_owned();
        self.wait(wait, what, || {
            self.started.load(Ordering::Acquire).then_some(())
        })
    }

    /// Ends the machine now, whatever its CPUs do.
    pub fn quit(&self) {
        self.end_as(Ending::Quit);
    }

    /// As [`Operator::quit`], because signal number `signal` has come. It is for the program to
    /// catch signals.
    pub fn interrupt(&self, signal: i32) {
        self.end_as(Ending::Signal(signal));
    }

    /// Waits for the machine to end by itself, and leaves that to its own limits.
    pub fn wait_end(&self) {
        while self.ended.get().is_none() {
            let soon = Instant::now() + Duration::from_secs(1);
            self.notifier.wait(soon, || self.ended.get().map(|_| ()));
        }
    }

    /// Adds a line to the guest's console, in order with what the guest says.
    pub fn say(&self, text: &str) {
        self.console.add(&format!("{text}\n"));
    }

    /// Says whether somebody drives the machine from beginning to end, so that it may well stand
    /// still.
    pub fn drive(&self, driven: bool) {
        self.driven.store(driven, Ordering::Relaxed);
    }

    /// How the machine ended, if it has.
    pub fn over(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }

    /// Whether the machine is over and has been wound up as well: nothing of it runs any more.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// How the machine ended, if it did not end by itself: by a signal, a time limit, or because
    /// somebody said so. Whoever had more to do with it, or with others, is not to go on.
    pub fn cut_short(&self) -> Option<&str> {
        self.over()
            .filter(|_| self.cut_short.load(Ordering::Acquire))
    }
}
