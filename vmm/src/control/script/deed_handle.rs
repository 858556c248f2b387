//! The functions of a script on a deed that it told a CPU: wait for it, get its result and, if it
//! was a call, ask where that has run.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use rhai::{Array, Engine, EvalAltResult, NativeCallContext};
use shared::ledger::CallId;

use super::ScriptContext;
use super::failure::{bad, small};
use super::machine::set;
use crate::control::operator::{CommandResult, Operator, OperatorError, PostedCommand};
use crate::cpus::CpuSet;
use crate::lab::Record;
use crate::lab::call_name::CallName;

type Answer<T> = Result<T, Box<EvalAltResult>>;

/// A deed that a CPU was told.
#[derive(Clone)]
pub(super) struct DeedHandle {
    context: Rc<ScriptContext>,
    operator: Arc<Operator>,
    posted: PostedCommand,
}

impl fmt::Display for DeedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.operator.told(self.posted);
        write!(f, "{told} on CPU {}", self.posted.cpu)
    }
}

pub(super) fn register(engine: &mut Engine, _: &Rc<ScriptContext>) {
    engine.register_type_with_name::<DeedHandle>("Deed");
    engine.register_fn("to_string", |deed: &mut DeedHandle| deed.to_string());
    engine.register_fn("is_done", |deed: &mut DeedHandle| -> Answer<bool> {
        Ok(deed.ask().done(deed.posted)?.is_some())
    });
    engine.register_fn(
        "wait_done",
        |at: NativeCallContext, deed: &mut DeedHandle| -> Answer<i64> {
            Ok(deed.acts_at(&at).wait()?.result.unwrap_or_default())
        },
    );
    engine.register_fn(
        "wait_refused",
        |at: NativeCallContext, deed: &mut DeedHandle| deed.acts_at(&at).wait_refused(),
    );
    engine.register_fn("answer", |at: NativeCallContext, deed: &mut DeedHandle| {
        deed.acts_at(&at).answer()
    });
    engine.register_fn("name", |deed: &mut DeedHandle| -> Answer<String> {
        Ok(CallName(deed.call()?).to_string())
    });
    engine.register_fn(
        "wait_made",
        |at: NativeCallContext, deed: &mut DeedHandle| -> Answer<()> {
            deed.acts_at(&at).call()?;
            Ok(())
        },
    );
    engine.register_fn(
        "wait_ran",
        |at: NativeCallContext, deed: &mut DeedHandle| deed.acts_at(&at).wait_ran_everywhere(),
    );
    engine.register_fn(
        "wait_ran",
        |at: NativeCallContext, deed: &mut DeedHandle, cpu: i64| {
            deed.acts_at(&at)
                .wait_ran(&CpuSet::from_iter([small("CPU", cpu)?]))
        },
    );
    engine.register_fn(
        "wait_ran",
        |at: NativeCallContext, deed: &mut DeedHandle, cpus: Array| {
            deed.acts_at(&at).wait_ran(&set(cpus)?)
        },
    );
    engine.register_fn(
        "ran_on",
        |deed: &mut DeedHandle, cpu: i64| -> Answer<bool> {
            let cpu = small("CPU", cpu)?;
            Ok(deed.record()?.is_none_or(|record| record.ran.contains(cpu)))
        },
    );
    engine.register_fn("ran", |deed: &mut DeedHandle| {
        deed.list(|record| &record.ran)
    });
    engine.register_fn("targets", |deed: &mut DeedHandle| {
        deed.list(|record| &record.targets)
    });
    engine.register_fn("cycles", |deed: &mut DeedHandle| deed.cycles());
}

impl DeedHandle {
    pub(super) fn new(
        context: &Rc<ScriptContext>,
        operator: &Arc<Operator>,
        posted: PostedCommand,
    ) -> Self {
        Self {
            context: Rc::clone(context),
            operator: Arc::clone(operator),
            posted,
        }
    }

    /// The id of the call, once it is known.
    pub(super) fn id(&self) -> Answer<u64> {
        Ok(self.call()?.raw())
    }

    /// Waits until it is done, and returns the CPUs with which it was answered.
    pub(super) fn answer(&self) -> Answer<Array> {
        let done = self.wait()?;
        let count = usize::try_from(done.result.unwrap_or_default()).unwrap_or(0);
        let cpus = done.answer.iter().take(count);
        Ok(cpus.map(|cpu| i64::from(*cpu).into()).collect())
    }

    fn ask(&self) -> &Operator {
        &self.operator
    }

    /// The same deed, for what the script does in this place.
    fn acts_at(&self, at: &NativeCallContext) -> &Self {
        super::stand_at(at.call_position());
        self
    }

    fn wait(&self) -> Answer<CommandResult> {
        Ok(self.ask().wait_done(self.posted, self.context.wait())?)
    }

    fn wait_refused(&self) -> Answer<String> {
        match self.ask().wait_done(self.posted, self.context.wait()) {
            Err(OperatorError::Refused { why, .. }) => Ok(why.to_string()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(super::failure::unmet(format!(
                "expected {self} to be refused"
            ))),
        }
    }

    fn call(&self) -> Answer<CallId> {
        Ok(self.ask().call(self.posted, self.context.wait())?)
    }

    /// The record of the call; `None` if its place has been used again.
    fn record(&self) -> Answer<Option<Record>> {
        let call = self.call()?;
        Ok(self.ask().record(call))
    }

    fn wait_ran(&self, cpus: &CpuSet) -> Answer<()> {
        let call = self.call()?;
        match self.ask().wait_ran(call, cpus, self.context.wait()) {
            // If it was refused, that is why.
            Err(error @ OperatorError::ToNobody(_)) => self.wait().and(Err(error.into())),
            ran => Ok(ran?),
        }
    }

    fn wait_ran_everywhere(&self) -> Answer<()> {
        // The targets of a call are final only when the call has returned.
        self.wait()?;
        match self.record()? {
            Some(record) => self.wait_ran(&record.targets),
            None => Ok(()),
        }
    }

    fn list(&self, which: impl Fn(&Record) -> &CpuSet) -> Answer<Array> {
        let record = self.record()?;
        let record = record.ok_or_else(|| {
            bad(format!(
                "{self} was complete long ago, and its record is taken by another call"
            ))
        })?;
        Ok(which(&record)
            .iter()
            .map(|cpu| i64::from(cpu).into())
            .collect())
    }

    /// TSC cycles from the beginning of the call until it returned to its caller.
    fn cycles(&self) -> Answer<i64> {
        self.wait()?;
        let head = self.record()?.map(|record| record.head);
        let cycles = head.map_or(0, |head| head.returned_tsc.wrapping_sub(head.made_tsc));
        Ok(cycles.cast_signed())
    }
}
