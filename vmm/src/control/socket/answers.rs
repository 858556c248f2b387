//! What the answers to requests contain: the state of the machine as JSON. Reads what an operator
//! shows, and changes nothing.

use serde_json::{Map, Value, json};
use shared::ledger::CallId;
use shared::ports::{Delivery, Dispatch};

use crate::control::operator::{
    CommandResult, InFlight, Operator, OperatorError, PostedCommand, Watch, counters,
};
use crate::cpus::CpuSet;
use crate::lab::Record;
use crate::lab::call_name::CallName;
use crate::machine::exit_counts::REASONS;
use crate::machine::message::HeldBy;
use crate::manifest::Deed;

type Fields = Map<String, Value>;

/// The fields of an object.
pub(super) fn object(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

/// The name by which requests and answers mean a call.
pub(super) fn call_id(id: CallId) -> String {
    CallName(id).bare()
}

/// What has come of a deed.
pub(super) fn done(operator: &Operator, posted: PostedCommand, done: &CommandResult) -> Fields {
    let result = done.result.unwrap_or_default();
    let mut fields = object(json!({ "result": result, "call": done.call.map(call_id) }));
    if let Some(answer) = operator.answer(posted, done) {
        fields.insert("answer".to_owned(), json!(answer));
    }
    fields
}

fn list(cpus: &CpuSet) -> Vec<u32> {
    cpus.iter().collect()
}

/// A call, as its record has it.
pub(super) fn record(record: &Record) -> Fields {
    object(json!({
        "call": call_id(CallId::from_raw(record.head.id)),
        "targets": list(&record.targets),
        "ran": list(&record.ran),
        "returned": record.head.returned_tsc != 0,
    }))
}

/// What a CPU of this guest can be told.
pub(super) fn deeds(operator: &Operator) -> Fields {
    let deeds = operator.manifest().deeds.iter().filter(|it| !it.ends);
    let shown = |deed: &Deed| json!({ "form": deed.to_string(), "about": deed.about });
    let deeds: Fields = deeds.map(|it| (it.name.clone(), shown(it))).collect();
    object(json!({ "deeds": deeds }))
}

/// Where every vCPU is, and what is on the wire.
pub(super) fn status(operator: &Operator) -> Result<Fields, OperatorError> {
    let outstanding = operator.outstanding();
    let vcpus = (0..operator.cpus())
        .map(|cpu| {
            let told = outstanding.iter().find(|posted| posted.cpu == cpu);
            let armed: Vec<_> = operator.armed(cpu).iter().map(watch).collect();
            Ok(json!({
                "cpu": cpu,
                "state": operator.state(cpu)?.name(),
                "held_by": operator.held_by(cpu)?.map(|by| held(operator, by)),
                "outstanding": told.map(|posted| deed(operator, *posted)),
                "armed": armed,
                "breakpoint": operator.breakpoint(cpu)?.map(|address| operator.place(address)),
            }))
        })
        .collect::<Result<Vec<_>, OperatorError>>()?;
    let wire: Vec<_> = operator
        .in_flight()
        .iter()
        .map(ToString::to_string)
        .collect();
    let started = operator.is_started();
    Ok(object(
        json!({ "ready": started, "lab": operator.has_lab(), "vcpus": vcpus, "wire": wire }),
    ))
}

/// An IPI on the wire.
pub(super) fn in_flight(ipi: &InFlight) -> Value {
    let Dispatch {
        target,
        vector,
        delivery,
    } = ipi.dispatch;
    let (vector, name) = match delivery {
        Delivery::Fixed => (Some(vector), ipi.name.as_deref()),
        Delivery::Init => (None, Some("init")),
        Delivery::StartUp => (None, Some("sipi")),
    };
    json!({
        "from": ipi.from,
        "to": target,
        "vector": vector,
        "name": name,
        "call": ipi.call.map(call_id),
    })
}

fn watch(watch: &Watch) -> Value {
    let call = watch.call.map(|raw| call_id(CallId::from_raw(raw)));
    json!({ "probe": watch.name, "nth": watch.nth, "call": call })
}

fn deed(operator: &Operator, posted: PostedCommand) -> Value {
    json!({ "deed": operator.told(posted), "number": posted.number })
}

fn held(operator: &Operator, by: HeldBy) -> Value {
    let probe = match by {
        HeldBy::Point { point, .. } => operator.probe_name(point),
        _ => None,
    };
    held_by(by, probe)
}

/// What a vCPU is held by; `probe` is the name of the point, if that is what it is held by.
pub(super) fn held_by(by: HeldBy, probe: Option<&str>) -> Value {
    match by {
        HeldBy::Point { call, .. } => json!({
            "probe": probe,
            "call": (call != 0).then(|| call_id(CallId::from_raw(call))),
        }),
        HeldBy::Address(address) => json!({ "address": address }),
        HeldBy::Steps => json!("steps"),
        HeldBy::Word => json!("word"),
    }
}

/// What there is to see of a stalled vCPU.
pub(super) fn look(operator: &Operator, cpu: u32) -> Result<Fields, OperatorError> {
    let look = operator.look(cpu)?;
    let registers = look.dump.registers();
    // Other registers have data, which has no name here, and seldom the address of a function.
    let named = registers.iter().filter_map(|(name, value)| {
        let symbol = operator.symbol(*value)?;
        let is_meant = *name == "rip" || !symbol.contains("+0x");
        is_meant.then(|| ((*name).to_owned(), symbol.into()))
    });
    let symbols: Fields = named.collect();
    let callers = look.dump.callers.iter();
    let callers: Vec<_> = callers.map(|address| operator.place(*address)).collect();
    let registers: Fields = registers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    Ok(object(json!({
        "cpu": cpu,
        "place": look.place,
        "callers": callers,
        "state": operator.state(cpu)?.name(),
        "held_by": look.held_by.map(|by| held_by(by, look.probe.as_deref())),
        "irqs_on": look.dump.interrupts_on(),
        "pending": look.dump.requested,
        "in_service": look.dump.in_service,
        "registers": registers,
        "symbols": symbols,
    })))
}

/// Exits, KVM's statistics and what the guest has counted.
pub(super) fn stats(operator: &Operator) -> Fields {
    let figures = operator.figures();
    let vcpus: Vec<_> = (0_usize..)
        .zip(&figures.counted)
        .map(|(cpu, counted)| {
            let exits: Map<_, _> = REASONS
                .iter()
                .zip(figures.window.exits(cpu))
                .map(|(name, count)| ((*name).to_owned(), count.into()))
                .collect();
            let kvm: Map<_, _> = figures
                .window
                .kvm(cpu)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), json!(value)))
                .collect();
            let mut stats = object(json!({ "cpu": cpu, "exits": exits, "kvm": kvm }));
            let counters = counters::named(counted, operator.manifest());
            let counters = counters.filter(|_| operator.has_lab());
            stats.extend(counters.map(|(name, value)| (name.to_owned(), value.into())));
            stats
        })
        .collect();
    let left_out: Map<_, _> = figures
        .window
        .left_out()
        .map(|(name, why)| (name.to_owned(), why.into()))
        .collect();
    let seconds = figures.window.length().as_secs_f64();
    object(json!({ "seconds": seconds, "kvm_left_out": left_out, "vcpus": vcpus }))
}
