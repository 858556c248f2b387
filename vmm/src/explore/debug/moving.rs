//! Moves the machine of a recording as gdb asks, forwards and backwards. CPUs go on in the order of the
//! recording, whatever thread gdb would have go on alone: a step of a CPU whose turn it is not ends when
//! it has executed an instruction, however many turns later that is.

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::multithread::{
    MultiThreadResume, MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps,
    MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::reverse_exec::{
    ReplayLogPosition, ReverseCont, ReverseContOps, ReverseStep, ReverseStepOps,
};
use gdbstub::target::ext::breakpoints::WatchKind;

use super::recording::{Position, RecordingError};
use super::search::{Found, Goal, Progress, Way};
use super::target::Target;
use crate::gdb::{cpu_of, thread_of};

/// A stop as gdb is told of it.
pub(super) type Stop = MultiThreadStopReason<u64>;

/// What the machine is doing while gdb waits.
#[derive(Debug)]
pub(super) struct Search {
    goal: Goal,
    /// How far it has come.
    at: Position,
}

impl Target<'_> {
    fn begin(&mut self, way: Way, stepping: Option<u32>) {
        let from = self.recording.position();
        if self.watched != self.watches {
            self.watched.clone_from(&self.watches);
            self.recording.watch(self.watched.clone());
        }
        let goal = Goal {
            way,
            from,
            stepping,
            breakpoints: self.breakpoints.clone(),
        };
        self.search = Some(Search { goal, at: from });
    }

    /// Goes on by one step of the recording. Returns the stop of which gdb is to be told, if the machine
    /// has come to it.
    ///
    /// # Errors
    /// [`RecordingError`] if the machine does not come to what it came to before.
    pub fn go_on(&mut self) -> Result<Option<Stop>, RecordingError> {
        let Some(Search { goal, at }) = self.search.take() else {
            return self.interrupted().map(Some);
        };
        match self.recording.look_for(&goal, at)? {
            Progress::Not(at) => {
                self.search = Some(Search { goal, at });
                Ok(None)
            }
            Progress::Found(found) => {
                let number = self.recording.position().step;
                if let Some(why) = self.recording.coarse_around(number) {
                    self.refused = Some(why.to_owned());
                }
                Ok(Some(self.told(&goal, found)))
            }
        }
    }

    /// Stays where the search has come to, since gdb wants no more of it.
    ///
    /// # Errors
    /// As [`Target::go_on`].
    pub fn interrupted(&mut self) -> Result<Stop, RecordingError> {
        if let Some(Search { at, .. }) = self.search.take() {
            self.recording.go_to(at)?;
        }
        let cpu = self.recording.cpu_at(self.recording.position());
        Ok(signal(cpu, Signal::SIGINT))
    }

    fn told(&self, goal: &Goal, found: Found) -> Stop {
        match found {
            Found::Breakpoint(cpu) => Stop::SwBreak(thread_of(cpu)),
            Found::Stepped(cpu) => signal(cpu, Signal::SIGTRAP),
            Found::Changed(cpu, watch) => Stop::Watch {
                tid: thread_of(cpu),
                kind: WatchKind::Write,
                addr: watch.address,
            },
            // Where it comes to the finding, and not where it wants to go on behind it.
            Found::End(cpu)
                if goal.way == Way::Forwards
                    && goal.from != self.recording.end()
                    && self.recording.breach().is_some() =>
            {
                signal(cpu, Signal::SIGABRT)
            }
            Found::End(cpu) => Stop::ReplayLog {
                tid: Some(thread_of(cpu)),
                pos: match goal.way {
                    Way::Forwards => ReplayLogPosition::End,
                    Way::Backwards => ReplayLogPosition::Begin,
                },
            },
        }
    }
}

fn signal(cpu: u32, signal: Signal) -> Stop {
    Stop::SignalWithThread {
        tid: thread_of(cpu),
        signal,
    }
}

impl MultiThreadResume for Target<'_> {
    fn resume(&mut self) -> Result<(), RecordingError> {
        let stepping = self.stepping.take();
        self.begin(Way::Forwards, stepping);
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), RecordingError> {
        self.stepping = None;
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        _: Tid,
        _: Option<Signal>,
    ) -> Result<(), RecordingError> {
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }

    fn support_reverse_step(&mut self) -> Option<ReverseStepOps<'_, Tid, Self>> {
        Some(self)
    }

    fn support_reverse_cont(&mut self) -> Option<ReverseContOps<'_, Tid, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Target<'_> {
    fn set_resume_action_step(
        &mut self,
        thread: Tid,
        _: Option<Signal>,
    ) -> Result<(), RecordingError> {
        self.stepping = Some(cpu_of(thread));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Target<'_> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), RecordingError> {
        Ok(())
    }
}

impl ReverseCont<Tid> for Target<'_> {
    fn reverse_cont(&mut self) -> Result<(), RecordingError> {
        self.begin(Way::Backwards, None);
        Ok(())
    }
}

impl ReverseStep<Tid> for Target<'_> {
    fn reverse_step(&mut self, thread: Tid) -> Result<(), RecordingError> {
        self.begin(Way::Backwards, Some(cpu_of(thread)));
        Ok(())
    }
}
