//! Lets vCPUs go on as gdb asks, and says which stopped first. gdb is told of one stop at a time, and all
//! vCPUs are stopped then. One that has come to a breakpoint meanwhile is told of when it would go on: so
//! that of two that come to one at once, neither is lost.

use std::collections::{BTreeMap, VecDeque};

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::multithread::{
    MultiThreadResume, MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps,
    MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::WatchKind;

use super::breakpoints::How;
use super::debuggee::Debuggee;
use crate::control::operator::OperatorError;
use crate::gdb::{cpu_of, thread_of};
use crate::machine::breakpoints::HardwarePoint;
use crate::machine::exit::DebuggerStop;

/// What a vCPU does when it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Continue,
    Step,
}

/// What vCPUs are to do, and which of them have stopped.
#[derive(Debug, Default)]
pub(super) struct Resumption {
    actions: BTreeMap<u32, Action>,
    /// Whether those that no action names stay where they are.
    is_locked: bool,
    /// The vCPUs that go on.
    going: Vec<u32>,
    /// Those of them that take a step.
    stepping: Vec<u32>,
    /// Those that have stopped and of which gdb has not been told.
    pending: VecDeque<(u32, DebuggerStop)>,
    /// The stop of which gdb is told instead of letting anything go on.
    ready: Option<(u32, DebuggerStop)>,
}

/// A stop as gdb is told of it.
pub(super) type Stop = MultiThreadStopReason<u64>;

impl Debuggee<'_> {
    /// Stops all vCPUs.
    ///
    /// # Errors
    /// The machine is over, or a vCPU does not leave the guest.
    pub fn stop(&mut self) -> Result<(), OperatorError> {
        self.operator.stop_for_debugger()?;
        let stops = self.operator.debugger_stops();
        self.resumption.pending.extend(stops);
        for cpu in std::mem::take(&mut self.resumption.stepping) {
            // One that has exited takes no step any more.
            let _ = self.operator.set_debugger_step(cpu, false);
        }
        Ok(())
    }

    /// The first of the vCPUs that have stopped since they went on, if one has. All are stopped then.
    ///
    /// # Errors
    /// As [`Debuggee::stop`].
    pub fn next_stop(&mut self) -> Result<Option<Stop>, OperatorError> {
        if let Some((cpu, stop)) = self.resumption.ready.take() {
            return Ok(Some(self.told(cpu, stop)));
        }
        let stops = self.operator.debugger_stops();
        self.resumption.pending.extend(stops);
        let Resumption { going, pending, .. } = &mut self.resumption;
        // Those that did not go on have stopped before, and gdb does not expect to hear of them now.
        let Some(first) = pending.iter().position(|(cpu, _)| going.contains(cpu)) else {
            return Ok(None);
        };
        let first = pending.remove(first);
        self.stop()?;
        // A step of which gdb is not told is over all the same.
        let pending = &mut self.resumption.pending;
        pending.retain(|(_, stop)| *stop != DebuggerStop::Step);
        Ok(first.map(|(cpu, stop)| self.told(cpu, stop)))
    }

    /// The stop that ^C is.
    pub fn interrupted(&self) -> Stop {
        let first = self.operator.debuggable().into_iter().next();
        Stop::SignalWithThread {
            tid: thread_of(first.unwrap_or(0)),
            signal: Signal::SIGINT,
        }
    }

    /// Removes what gdb has set, and lets all vCPUs go on.
    ///
    /// # Errors
    /// The machine is over, and nothing is left to be undone.
    pub fn let_go(&mut self) -> Result<(), OperatorError> {
        // Each is attempted, whatever becomes of the others: nobody comes after this to try again.
        let stopped = self.stop();
        let removed = self.remove_all();
        let gone_on = self.operator.go_on_from_debugger(0..self.operator.cpus());
        self.operator.debugger_leaves();
        stopped.and(removed).and(gone_on)
    }

    /// The vCPU whose mode says how an instruction is decoded: the first that executes any.
    pub fn decoding_cpu(&self) -> u32 {
        let cpus = self.operator.debuggable();
        let pages = |cpu: &&u32| {
            matches!(
                self.operator.debug(**cpu, |it| it.has_paging()),
                Ok(Ok(true))
            )
        };
        let first = cpus.iter().find(pages).or_else(|| cpus.first());
        first.copied().unwrap_or(0)
    }

    fn told(&self, cpu: u32, stop: DebuggerStop) -> Stop {
        let thread = thread_of(cpu);
        match stop {
            DebuggerStop::Breakpoint(address) => {
                let placed = self.placed.iter().find(|placed| placed.is_at(address));
                match placed.is_some_and(|placed| placed.is_hard) {
                    true => Stop::HwBreak(thread),
                    false => Stop::SwBreak(thread),
                }
            }
            DebuggerStop::Watchpoint(address) => Stop::Watch {
                tid: thread,
                kind: self.watches(address).unwrap_or(WatchKind::Write),
                addr: address,
            },
            DebuggerStop::Step => Stop::SignalWithThread {
                tid: thread,
                signal: Signal::SIGTRAP,
            },
        }
    }

    /// What is watched at `address`, if anything is.
    fn watches(&self, address: u64) -> Option<WatchKind> {
        self.placed.iter().find_map(|placed| match placed.how {
            How::Hardware(HardwarePoint::Data {
                address: at,
                reads_too,
                ..
            }) if at == address => Some(match reads_too {
                true => WatchKind::ReadWrite,
                false => WatchKind::Write,
            }),
            _ => None,
        })
    }

    /// Whether a vCPU that has stopped is still where it did, and gdb still wants to know.
    fn is_still_there(&self, cpu: u32, stop: DebuggerStop) -> bool {
        match stop {
            DebuggerStop::Breakpoint(address) => {
                let at = self.operator.debug(cpu, |it| it.instruction_pointer());
                let is_set = self.placed.iter().any(|placed| placed.is_at(address));
                is_set && matches!(at, Ok(Ok(at)) if at == address)
            }
            DebuggerStop::Watchpoint(address) => self.watches(address).is_some(),
            DebuggerStop::Step => false,
        }
    }
}

impl MultiThreadResume for Debuggee<'_> {
    fn resume(&mut self) -> Result<(), OperatorError> {
        let Resumption {
            actions, is_locked, ..
        } = &self.resumption;
        let all = self.operator.debuggable();
        let goes = |cpu: &u32| !is_locked || actions.contains_key(cpu);
        let going: Vec<u32> = all.iter().copied().filter(goes).collect();
        let steps = actions.iter().filter(|(_, it)| **it == Action::Step);
        // Of one that there is not, gdb hears when it asks for the threads.
        let steps = steps.map(|(cpu, _)| *cpu).filter(|cpu| all.contains(cpu));
        let steps: Vec<u32> = steps.collect();
        let is_going = |(cpu, _): &(u32, DebuggerStop)| going.contains(cpu);
        while let Some(place) = self.resumption.pending.iter().position(is_going) {
            let stopped = self.resumption.pending.remove(place);
            let stopped = stopped.filter(|(cpu, stop)| self.is_still_there(*cpu, *stop));
            if stopped.is_some() {
                self.resumption.ready = stopped;
                return Ok(());
            }
        }
        for cpu in steps {
            self.operator.set_debugger_step(cpu, true)?;
            self.resumption.stepping.push(cpu);
        }
        self.resumption.going.clone_from(&going);
        self.operator.go_on_from_debugger(going)
    }

    fn clear_resume_actions(&mut self) -> Result<(), OperatorError> {
        self.resumption.actions.clear();
        self.resumption.is_locked = false;
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        thread: Tid,
        _: Option<Signal>,
    ) -> Result<(), OperatorError> {
        let actions = &mut self.resumption.actions;
        actions.insert(cpu_of(thread), Action::Continue);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Debuggee<'_> {
    fn set_resume_action_step(
        &mut self,
        thread: Tid,
        _: Option<Signal>,
    ) -> Result<(), OperatorError> {
        let actions = &mut self.resumption.actions;
        actions.insert(cpu_of(thread), Action::Step);
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Debuggee<'_> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), OperatorError> {
        self.resumption.is_locked = true;
        Ok(())
    }
}
