//! The functions of a script on one CPU: stalls, points, steps and inspection. What a CPU can be
//! told to do is in [`deeds`](super::deeds).

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use rhai::{Array, Engine, EvalAltResult, Map, NativeCallContext};

use super::ScriptContext;
use super::deed_handle::DeedHandle;
use super::failure::{bad, small};
use crate::control::operator::{Operator, OperatorError, PostedCommand, Wait, Watch, counters};
use crate::machine::exit_counts::REASONS;
use crate::machine::lifecycle::{Stall, State};
use crate::manifest::Manifest;
use crate::stats::window::Value;

type Answer<T> = Result<T, Box<EvalAltResult>>;

/// One CPU of a machine of the script.
#[derive(Clone)]
pub(super) struct CpuHandle {
    context: Rc<ScriptContext>,
    operator: Arc<Operator>,
    id: u32,
}

impl fmt::Display for CpuHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {}", self.id)
    }
}

pub(super) fn register(engine: &mut Engine, context: &Rc<ScriptContext>) {
    let context = Rc::clone(context);
    engine.register_type_with_name::<CpuHandle>("Cpu");
    engine.register_fn("to_string", |cpu: &mut CpuHandle| cpu.to_string());
    engine.register_fn("cpu", move |id: i64| -> Answer<CpuHandle> {
        let (operator, id) = (context.operator()?, small("CPU", id)?);
        operator.state(id)?;
        let context = Rc::clone(&context);
        Ok(CpuHandle {
            context,
            operator,
            id,
        })
    });
    register_stalls(engine);
    register_looks(engine);
}

fn register_stalls(engine: &mut Engine) {
    engine.register_fn(
        "pause",
        |at: NativeCallContext, cpu: &mut CpuHandle| -> Answer<()> {
            cpu.act(&at).pause(cpu.id)?;
            Ok(())
        },
    );
    engine.register_fn(
        "resume",
        |at: NativeCallContext, cpu: &mut CpuHandle| -> Answer<()> {
            Ok(cpu.act(&at).resume(cpu.id)?)
        },
    );
    engine.register_fn(
        "hold_at",
        |at: NativeCallContext, cpu: &mut CpuHandle, probe: &str| cpu.hold(&at, probe, 1, None),
    );
    engine.register_fn(
        "hold_at",
        |at: NativeCallContext, cpu: &mut CpuHandle, probe: &str, nth: i64| {
            cpu.hold(&at, probe, nth, None)
        },
    );
    engine.register_fn(
        "hold_at",
        |at: NativeCallContext, cpu: &mut CpuHandle, probe: &str, call: DeedHandle| {
            cpu.hold(&at, probe, 1, Some(call))
        },
    );
    engine.register_fn(
        "hold_at",
        |at: NativeCallContext, cpu: &mut CpuHandle, probe: &str, call: DeedHandle, nth: i64| {
            cpu.hold(&at, probe, nth, Some(call))
        },
    );
    engine.register_fn(
        "break_at",
        |at: NativeCallContext, cpu: &mut CpuHandle, place: &str| -> Answer<i64> {
            let address = cpu.act(&at).break_at(cpu.id, place)?;
            Ok(address.cast_signed())
        },
    );
    engine.register_fn(
        "break_at",
        |at: NativeCallContext, cpu: &mut CpuHandle, address: i64| -> Answer<i64> {
            let place = format!("{address:#x}");
            Ok(cpu.act(&at).break_at(cpu.id, &place)?.cast_signed())
        },
    );
    engine.register_fn(
        "disarm",
        |at: NativeCallContext, cpu: &mut CpuHandle| -> Answer<()> {
            Ok(cpu.act(&at).disarm(cpu.id)?)
        },
    );
    engine.register_fn(
        "wait_held",
        |at: NativeCallContext, cpu: &mut CpuHandle| -> Answer<()> {
            Ok(cpu.act(&at).wait_held(cpu.id, cpu.context.wait())?)
        },
    );
    engine.register_fn("step", |at: NativeCallContext, cpu: &mut CpuHandle| {
        cpu.step(&at, 1)
    });
    engine.register_fn(
        "step",
        |at: NativeCallContext, cpu: &mut CpuHandle, count: i64| cpu.step(&at, count),
    );
}

fn register_looks(engine: &mut Engine) {
    engine.register_get("id", |cpu: &mut CpuHandle| i64::from(cpu.id));
    engine.register_fn("state", |cpu: &mut CpuHandle| -> Answer<&'static str> {
        Ok(cpu.ask().state(cpu.id)?.name())
    });
    engine.register_fn("is_held", |cpu: &mut CpuHandle| -> Answer<bool> {
        Ok(cpu.ask().state(cpu.id)? == State::Stalled(Stall::Held))
    });
    engine.register_fn("look", |cpu: &mut CpuHandle| cpu.look());
    engine.register_fn("counters", |cpu: &mut CpuHandle| cpu.counters());
    engine.register_fn("exits", |cpu: &mut CpuHandle| cpu.exits());
    engine.register_fn("kvm", |cpu: &mut CpuHandle| cpu.kvm());
}

impl CpuHandle {
    fn ask(&self) -> &Operator {
        &self.operator
    }

    /// The same, for what the script does in this place.
    pub(super) fn act(&self, at: &NativeCallContext) -> &Operator {
        super::stand_at(at.call_position());
        &self.operator
    }

    fn hold(
        &self,
        at: &NativeCallContext,
        probe: &str,
        nth: i64,
        call: Option<DeedHandle>,
    ) -> Answer<()> {
        let nth = u64::try_from(nth).ok().filter(|nth| *nth > 0);
        let watch = Watch {
            name: probe.to_owned(),
            call: call.map(|call| call.id()).transpose()?,
            nth: nth.ok_or_else(|| bad("times are counted from 1".to_owned()))?,
        };
        Ok(self.act(at).hold_at(self.id, watch)?)
    }

    fn step(&self, at: &NativeCallContext, count: i64) -> Answer<()> {
        let count = u64::try_from(count).ok().filter(|count| *count > 0);
        let count = count.ok_or_else(|| bad("at least one instruction is stepped".to_owned()))?;
        Ok(self.act(at).step(self.id, count, self.context.wait())?)
    }

    /// Tells the CPU to do something, by a verb of the operator.
    pub(super) fn tell(
        &self,
        at: &NativeCallContext,
        told: impl FnOnce(&Operator, u32, Wait<'_>) -> Result<PostedCommand, OperatorError>,
    ) -> Answer<DeedHandle> {
        let posted = told(self.act(at), self.id, self.context.wait())?;
        Ok(DeedHandle::new(&self.context, &self.operator, posted))
    }

    /// The manifest of the guest.
    pub(super) fn manifest(&self) -> &Manifest {
        self.ask().manifest()
    }

    fn look(&self) -> Answer<Map> {
        let look = self.ask().look(self.id)?;
        let dump = &look.dump;
        let list =
            |vectors: &[u8]| -> Array { vectors.iter().map(|it| i64::from(*it).into()).collect() };
        let mut map = Map::new();
        let mut put = |key: &str, value: rhai::Dynamic| {
            map.insert(key.into(), value);
        };
        put("place", look.place.into());
        put("irqs_on", dump.interrupts_on().into());
        put("pending", list(&dump.requested).into());
        put("in_service", list(&dump.in_service).into());
        put("probe", look.probe.map_or(rhai::Dynamic::UNIT, Into::into));
        for (name, value) in dump.registers() {
            put(name, value.cast_signed().into());
        }
        Ok(map)
    }

    fn counters(&self) -> Answer<Map> {
        let counted = self.ask().counted(self.id);
        let counted = counted.ok_or_else(|| bad(format!("there is no CPU {}", self.id)))?;
        Ok(counters::named(&counted, self.ask().manifest())
            .map(|(name, value)| (name.into(), value.cast_signed().into()))
            .collect())
    }

    fn exits(&self) -> Answer<Map> {
        let window = self.ask().figures().window;
        let exits = REASONS.iter().zip(window.exits(self.id as usize));
        Ok(exits
            .map(|(name, count)| ((*name).into(), count.cast_signed().into()))
            .collect())
    }

    fn kvm(&self) -> Answer<Map> {
        let window = self.ask().figures().window;
        let single = window
            .kvm(self.id as usize)
            .into_iter()
            .filter_map(|(name, value)| {
                let Value::One(value) = value else {
                    return None;
                };
                Some((name.into(), value.cast_signed().into()))
            });
        Ok(single.collect())
    }
}
