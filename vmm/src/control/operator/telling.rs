//! Telling the CPUs of a guest what to do, and waiting for the results.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::ledger::CallId;
use shared::ports::Dispatch;

use super::{CommandResult, Operator, OperatorError, PostedCommand, Wait};
use crate::cpus::CpuSet;
use crate::lab::Record;
use crate::lab::call_name::CallName;
use crate::lab::deed::TellError;
use crate::lab::mailbox::Command;

impl Operator {
    /// The name of the deed that a CPU was told.
    pub fn told(&self, posted: PostedCommand) -> &str {
        self.manifest().deed_name(posted.verb)
    }

    /// Tells a CPU what `words` say, such as `call-many 1,3 wait`, once it has done its last
    /// command. `vmm describe` lists what a guest's CPUs can be told.
    ///
    /// # Errors
    /// [`OperatorError::Tell`] if it cannot be told that; otherwise as [`Operator::post`].
    pub fn tell(
        &self,
        cpu: u32,
        words: &str,
        wait: Wait<'_>,
    ) -> Result<PostedCommand, OperatorError> {
        let (_, command) = self.manifest().told(words)?;
        self.post(cpu, &command, wait)
    }

    /// Posts a command to a CPU, once it has done its last one, and wakes it.
    ///
    /// # Errors
    /// If the CPU takes too long, or the guest takes no commands.
    pub fn post(
        &self,
        cpu: u32,
        command: &Command,
        wait: Wait<'_>,
    ) -> Result<PostedCommand, OperatorError> {
        let words = || self.manifest().words(command);
        let text = || format!("tells CPU {cpu} {}", words());
        let doing = self.recorder.begin(text);
        doing.attempt(|| {
            self.check_is_cpu(cpu)?;
            self.check_takes_commands(wait)?;
            self.commands
                .keep_program(command)
                .map_err(TellError::from)?;
            let what = || {
                let last = self.outstanding().into_iter().find(|last| last.cpu == cpu);
                let last = last.map_or(String::new(), |last| format!("{} on ", self.told(last)));
                let next = self.manifest().deed_name(command.verb);
                format!("{last}CPU {cpu}, which is to do {next} next,")
            };
            let posted = self.wait(wait, what, || self.commands.post(cpu, command).ok())?;
            let wakes = self.manifest().wake_vector();
            let arrived = self.deliver(Dispatch::fixed(cpu, wakes))?;
            self.added.fetch_add(arrived.into(), Ordering::Relaxed);
            Ok(posted)
        })
    }

    /// Checks that the guest takes commands, which is known once its workload has started.
    pub(super) fn check_takes_commands(&self, wait: Wait<'_>) -> Result<(), OperatorError> {
        self.wait_started(wait)?;
        match self.takes_commands() {
            true => Ok(()),
            false => Err(OperatorError::TakesNoCommands),
        }
    }

    /// The result of a command, if it is done.
    ///
    /// # Errors
    /// [`OperatorError::Refused`] if it was refused.
    pub fn done(&self, posted: PostedCommand) -> Result<Option<CommandResult>, OperatorError> {
        let done = self.commands.done(posted);
        match done.map(|done| done.result) {
            Some(Err(why)) => Err(OperatorError::Refused {
                cpu: posted.cpu,
                deed: self.told(posted).to_owned(),
                why,
            }),
            _ => Ok(done),
        }
    }

    /// Waits until a command is done, and returns its result.
    ///
    /// # Errors
    /// If it takes too long, or was refused.
    pub fn wait_done(
        &self,
        posted: PostedCommand,
        wait: Wait<'_>,
    ) -> Result<CommandResult, OperatorError> {
        let what = || format!("{} on CPU {}", self.told(posted), posted.cpu);
        let doing = self.recorder.begin(|| format!("waits for {}", what()));
        doing.attempt(|| self.wait(wait, what, || self.done(posted).transpose())?)
    }

    /// Waits until the CPU has entered the call that a command makes in its ledger, and returns the
    /// call. The guest may refuse the command all the same; the call was made to nobody then.
    ///
    /// # Errors
    /// If that takes too long, or the command is over, refused or done, and has entered no call.
    pub fn call(&self, posted: PostedCommand, wait: Wait<'_>) -> Result<CallId, OperatorError> {
        let told = || self.told(posted).to_owned();
        let what = || format!("{} being entered in CPU {}'s ledger", told(), posted.cpu);
        self.wait(wait, what, || {
            // Asked first: what is entered before a command is over is seen then.
            let done = self.done(posted).transpose();
            let no_call = || {
                let (cpu, deed) = (posted.cpu, told());
                done.map(|done| done.and(Err(OperatorError::NoCall { cpu, deed })))
            };
            self.commands.call(posted).map(Ok).or_else(no_call)
        })?
    }

    /// The command with this number, if it was posted.
    pub fn posted(&self, cpu: u32, number: u64) -> Option<PostedCommand> {
        self.commands.posted(cpu, number)
    }

    /// The list with which a CPU has answered, if it was told a deed that answers with one.
    pub fn answer(&self, posted: PostedCommand, done: &CommandResult) -> Option<Vec<u16>> {
        let deed = self.manifest().deed_numbered(posted.verb)?;
        let length = usize::try_from(done.result.ok()?).unwrap_or(0);
        let length = length.min(done.answer.len());
        deed.answers.then(|| done.answer[..length].to_vec())
    }

    /// The commands that are not done.
    pub fn outstanding(&self) -> Vec<PostedCommand> {
        self.commands.outstanding()
    }

    /// Waits until a call has returned to its caller, and has run on all its targets. These are
    /// final only then.
    ///
    /// # Errors
    /// [`OperatorError::TimedOut`] says on which it has not run.
    pub fn wait_ran_everywhere(&self, call: CallId, wait: Wait<'_>) -> Result<(), OperatorError> {
        let doing = self
            .recorder
            .begin(|| format!("waits until {} has run everywhere", CallName(call)));
        doing.attempt(|| {
            let wait = wait.begun(Duration::ZERO);
            let record = || self.record(call);
            let missing =
                || record().map_or_else(CpuSet::default, |it| it.targets.without(&it.ran));
            let what = || match missing() {
                none if none.is_empty() => format!("the return of {}", CallName(call)),
                some => format!("{} on {}", CallName(call), some.noun()),
            };
            self.wait(wait, what, || {
                // A record whose place was used again was complete.
                let returned = record().is_none_or(|record| record.head.returned_tsc != 0);
                (returned && missing().is_empty()).then_some(())
            })
        })
    }

    /// Waits until a call has run on `cpus`.
    ///
    /// # Errors
    /// [`OperatorError::TimedOut`] says on which it has not, and [`OperatorError::ToNobody`] that it
    /// was made to no CPU. Or there is no such CPU.
    pub fn wait_ran(
        &self,
        call: CallId,
        cpus: &CpuSet,
        wait: Wait<'_>,
    ) -> Result<(), OperatorError> {
        let doing = self
            .recorder
            .begin(|| format!("waits until {} has run on {}", CallName(call), cpus.noun()));
        doing.attempt(|| {
            cpus.iter().try_for_each(|cpu| self.check_is_cpu(cpu))?;
            let missing = |record: Option<&Record>| {
                // A record whose place was used again was complete.
                record.map_or_else(CpuSet::default, |record| cpus.without(&record.ran))
            };
            let what = || {
                let missing = missing(self.record(call).as_ref());
                format!("{} on {}", CallName(call), missing.noun())
            };
            self.wait(wait, what, || {
                let record = self.record(call);
                let to_nobody = record.as_ref().is_some_and(|record| {
                    record.head.returned_tsc != 0 && record.targets.is_empty()
                });
                match missing(record.as_ref()).is_empty() {
                    true => Some(Ok(())),
                    false => to_nobody.then_some(Err(OperatorError::ToNobody(call))),
                }
            })?
        })
    }
}
