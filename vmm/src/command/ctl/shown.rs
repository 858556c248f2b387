//! Answers and events as `vmm ctl` shows them to people: sentences and tables. Takes what it finds
//! in an answer; a field that is missing, as from another version of the VMM, is left out.

use comfy_table::{CellAlignment, Table};
use serde_json::{Map, Value};
use vmm::cpus::CpuSet;
use vmm::table_style::RULED;

use super::verbs::{Ask, Wire};

/// Most CPUs that have a column of their own in the table of counts.
const COLUMNS: usize = 8;

/// The answer to what was asked, or an event.
pub(super) fn answer(ask: &Ask, answer: &Value) -> String {
    if answer["ok"] == false {
        let error = answer["error"].as_str().unwrap_or("refused");
        return error.to_owned();
    }
    if answer["event"].is_string() {
        return event(answer);
    }
    match ask {
        Ask::Hello => format!(
            "vmm {}, protocol {}",
            plain(&answer["version"]),
            plain(&answer["protocol"])
        ),
        Ask::Verbs => verbs(answer),
        Ask::Ready { .. } => format!("ready, with {} CPUs", plain(&answer["cpus"])),
        Ask::Status => status(answer),
        Ask::Break { .. } | Ask::Hold { at: Some(_), .. } => {
            format!("will be held at {}", plain(&answer["place"]))
        }
        Ask::WaitHeld { .. } | Ask::Step { .. } | Ask::Look { .. } => look(answer),
        Ask::Deeds => deeds(answer),
        Ask::Tell { .. } | Ask::WaitMade { .. } | Ask::WaitDone { .. } => told(answer),
        Ask::Call { .. } | Ask::WaitRan { .. } => call(answer),
        Ask::Subscribe { .. } => {
            let kinds = answer["events"].as_array().into_iter().flatten();
            let kinds: Vec<_> = kinds.map(plain).collect();
            format!("subscribed to {}", kinds.join(", "))
        }
        Ask::RanOn { call, cpu } => match answer["ran_on"] == true {
            true => format!("call {call} has run on CPU {cpu}"),
            false => format!("call {call} has not run on CPU {cpu}"),
        },
        Ask::Stats => stats(answer),
        Ask::Wire(Wire::InFlight) => in_flight(answer),
        _ => lines(answer),
    }
}

/// A line for each field: for what has no form of its own.
fn lines(answer: &Value) -> String {
    let empty = Map::new();
    let fields = answer.as_object().unwrap_or(&empty).iter();
    let shown =
        fields.filter(|(name, value)| !["ok", "id"].contains(&&***name) && !value.is_null());
    let lines: Vec<_> = shown
        .map(|(name, value)| format!("{name} {}", plain(value)))
        .collect();
    match lines.is_empty() {
        true => "ok".to_owned(),
        false => lines.join("\n"),
    }
}

fn event(event: &Value) -> String {
    let on = |what: &str| format!("CPU {} {what}", plain(&event["cpu"]));
    match event["event"].as_str().unwrap_or_default() {
        "held" => on(&format!("is {}", held_by(&event["held_by"]))),
        "done" => {
            let deed = plain(&event["deed"]);
            let number = plain(&event["number"]);
            let about = with_call(event);
            match event["refused"].as_str() {
                Some(why) => on(&format!("has refused {deed}, its deed {number}: {why}")),
                None => {
                    let result = result(event);
                    on(&format!(
                        "has done {deed}, its deed {number}{about}{result}"
                    ))
                }
            }
        }
        "finding" => format!("{}: {}", plain(&event["oracle"]), plain(&event["text"])),
        "died" => on(&format!("has died: {}", plain(&event["why"]))),
        "ended" => format!("the machine is over: {}", plain(&event["why"])),
        "dropped" => format!("{} events were not read in time", plain(&event["count"])),
        _ => event.to_string(),
    }
}

fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(RULED).set_header(header);
    table.add_rows(rows);
    trimmed(&table)
}

fn trimmed(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

fn verbs(answer: &Value) -> String {
    let verbs = answer["verbs"].as_object().into_iter().flatten();
    table(
        ["verb", "fields"],
        verbs.map(|(name, fields)| [name.clone(), plain(fields)]),
    )
}

fn deeds(answer: &Value) -> String {
    let deeds = answer["deeds"].as_object().into_iter().flatten();
    table(
        ["deed", ""],
        deeds.map(|(_, deed)| [plain(&deed["form"]), plain(&deed["about"])]),
    )
}

fn in_flight(answer: &Value) -> String {
    let ipis: Vec<_> = answer["ipis"].as_array().into_iter().flatten().collect();
    if ipis.is_empty() {
        return "no IPI is in flight".to_owned();
    }
    let rows = ipis.into_iter().map(|ipi| {
        let of = |name: &str| match &ipi[name] {
            Value::Null => String::new(),
            value => plain(value),
        };
        let vector = match (&ipi["name"], ipi["vector"].as_u64()) {
            (Value::Null, Some(number)) => format!("{number:#04x}"),
            (name, _) => plain(name),
        };
        [of("from"), of("to"), vector, of("call")]
    });
    table(["from", "to", "IPI", "call"], rows)
}

fn status(answer: &Value) -> String {
    let vcpus = answer["vcpus"].as_array().into_iter().flatten();
    let rows = vcpus.map(|vcpu| {
        let told = match &vcpu["outstanding"] {
            Value::Null => String::new(),
            told => format!("{} (deed {})", plain(&told["deed"]), plain(&told["number"])),
        };
        let armed = vcpu["armed"].as_array().into_iter().flatten();
        let breakpoint = vcpu["breakpoint"].as_str().map(str::to_owned);
        let armed: Vec<_> = armed.map(watch).chain(breakpoint).collect();
        let state = match &vcpu["held_by"] {
            Value::Null => plain(&vcpu["state"]),
            by => held_by(by),
        };
        [plain(&vcpu["cpu"]), state, told, armed.join("; ")]
    });
    let mut text = table(["CPU", "state", "does", "to be held at"], rows);
    match (&answer["ready"], &answer["lab"]) {
        (Value::Bool(false), Value::Bool(false)) => {
            text.push_str(
                "\nthe guest was told of no lab, and its workload has not started (--start-at)",
            );
        }
        (Value::Bool(false), _) => text.push_str("\nthe guest's workload has not started yet"),
        _ => {}
    }
    let wire: Vec<_> = answer["wire"].as_array().into_iter().flatten().collect();
    if !wire.is_empty() {
        text.push_str("\non the wire:");
    }
    for ipi in wire {
        text.push_str("\n  ");
        text.push_str(&plain(ipi));
    }
    text
}

fn watch(watch: &Value) -> String {
    let mut text = plain(&watch["probe"]);
    text.push_str(&with_call(watch));
    if watch["nth"].as_u64().is_some_and(|nth| nth > 1) {
        text.push_str(&format!(
            ", once it comes there {} times",
            plain(&watch["nth"])
        ));
    }
    text
}

/// `held at queue.visit, call 0:0:2`.
fn held_by(by: &Value) -> String {
    if let Some(address) = by["address"].as_u64() {
        return format!("held at {address:#x}");
    }
    match by.as_str() {
        Some("steps") => "held after its steps".to_owned(),
        Some(_) => "held".to_owned(),
        None => format!("held at {}{}", plain(&by["probe"]), with_call(by)),
    }
}

fn with_call(value: &Value) -> String {
    match value["call"].as_str() {
        Some(call) => format!(", call {call}"),
        None => String::new(),
    }
}

fn look(answer: &Value) -> String {
    let state = match &answer["held_by"] {
        Value::Null => plain(&answer["state"]),
        by => held_by(by),
    };
    let irqs = if answer["irqs_on"] == true {
        "on"
    } else {
        "off"
    };
    let cpu = plain(&answer["cpu"]);
    let mut lines = vec![
        format!("CPU {cpu} is {state}, interrupts {irqs}"),
        format!("at {}", plain(&answer["place"])),
    ];
    for caller in answer["callers"].as_array().into_iter().flatten() {
        lines.push(format!("    called from {}", plain(caller)));
    }
    for (field, name) in [("pending", "pending"), ("in_service", "in service")] {
        let vectors: Vec<_> = answer[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .map(|vector| format!("{vector:#04x}"))
            .collect();
        if !vectors.is_empty() {
            lines.push(format!("{name} {}", vectors.join(", ")));
        }
    }
    let registers = &answer["registers"];
    // In the order of the processor's manuals, which a JSON object does not keep.
    for name in REGISTERS {
        if let Some(value) = registers[name].as_u64() {
            let symbol = answer["symbols"][name].as_str().unwrap_or_default();
            let line = format!("{name:<6}  {value:#018x}  {symbol}");
            lines.push(line.trim_end().to_owned());
        }
    }
    lines.join("\n")
}

const REGISTERS: [&str; 18] = [
    "rip", "rflags", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10",
    "r11", "r12", "r13", "r14", "r15",
];

fn told(answer: &Value) -> String {
    let is_done = answer.get("result").is_some();
    let mut parts = Vec::new();
    match (answer["number"].as_u64(), answer["cpu"].as_u64()) {
        (Some(number), Some(cpu)) => parts.push(format!("told CPU {cpu}, its deed {number}")),
        _ if is_done => parts.push("done".to_owned()),
        _ => {}
    }
    if let Some(call) = answer["call"].as_str() {
        parts.push(format!("call {call}"));
    }
    let done = if is_done {
        result(answer)
    } else {
        String::new()
    };
    format!("{}{done}", parts.join(", "))
}

/// `, result 0`, and the list with which a deed answers.
fn result(answer: &Value) -> String {
    let list = match answer["answer"].as_array() {
        Some(list) => {
            let list: Vec<_> = list.iter().map(plain).collect();
            match list.is_empty() {
                true => ", answer: none".to_owned(),
                false => format!(", answer: {}", list.join(", ")),
            }
        }
        None => String::new(),
    };
    format!(", result {}{list}", plain(&answer["result"]))
}

fn call(answer: &Value) -> String {
    let set = |name: &str| -> CpuSet {
        let cpus = answer[name].as_array().into_iter().flatten();
        cpus.filter_map(|cpu| u32::try_from(cpu.as_u64()?).ok())
            .collect()
    };
    let (targets, ran) = (set("targets"), set("ran"));
    let missing = targets.without(&ran);
    let mut text = format!(
        "call {}, made to {}",
        plain(&answer["call"]),
        targets.noun()
    );
    if targets.is_empty() {
        // Nothing can be said of nobody.
    } else if missing.is_empty() {
        text.push_str(", has run on all of them");
    } else {
        text.push_str(&format!(
            ", has run on {}, and not on {}",
            ran.noun(),
            missing.noun()
        ));
    }
    let returned = if answer["returned"] == true {
        ", and has returned"
    } else {
        ", and has not returned"
    };
    text.push_str(returned);
    text
}

/// The counts that are not zero, by name, with a column for each CPU if there are not too many.
fn stats(answer: &Value) -> String {
    let vcpus: Vec<_> = answer["vcpus"].as_array().into_iter().flatten().collect();
    let mut text = format!(
        "{:.3} s, {} CPUs; what is 0 everywhere is left out",
        answer["seconds"].as_f64().unwrap_or_default(),
        vcpus.len()
    );
    let of = |field: &str| vcpus.iter().map(|vcpu| vcpu[field].as_object()).collect();
    let counted = vcpus.iter().map(|vcpu| vcpu.as_object()).collect();
    for (title, by_cpu) in [
        ("exit", of("exits")),
        ("of KVM", of("kvm")),
        ("of the guest", counted),
    ] {
        text.push_str(&counts(title, by_cpu));
    }
    let left_out = answer["kvm_left_out"].as_object().into_iter().flatten();
    for (name, why) in left_out {
        text.push_str(&format!("\nleft out: {name} ({})", plain(why)));
    }
    text
}

/// A table of the counts that are not zero, by name.
fn counts(title: &str, by_cpu: Vec<Option<&Map<String, Value>>>) -> String {
    let by_cpu: Vec<_> = by_cpu.into_iter().flatten().collect();
    let names = by_cpu.first().into_iter().flat_map(|first| first.keys());
    let rows: Vec<_> = names
        .filter(|name| *name != "cpu")
        .filter_map(|name| {
            let counts: Vec<_> = by_cpu
                .iter()
                .filter_map(|it| it.get(name)?.as_u64())
                .collect();
            let sum = counts.iter().copied().fold(0, u64::wrapping_add);
            (sum > 0).then(|| count_row(name, &counts, sum))
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(RULED);
    table.set_header(count_header(title, by_cpu.len()));
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("\n\n{}", trimmed(&table))
}

fn count_header(title: &str, cpus: usize) -> Vec<String> {
    let mut header = vec![title.to_owned(), "sum".to_owned()];
    if cpus <= COLUMNS {
        header.extend((0..cpus).map(|cpu| format!("CPU {cpu}")));
    } else {
        header.extend(["least".to_owned(), "most".to_owned()]);
    }
    header
}

fn count_row(name: &str, counts: &[u64], sum: u64) -> Vec<String> {
    let mut row = vec![name.to_owned(), sum.to_string()];
    if counts.len() <= COLUMNS {
        row.extend(counts.iter().map(u64::to_string));
    } else {
        let of = |count: Option<&u64>| count.map_or_else(String::new, u64::to_string);
        row.extend([of(counts.iter().min()), of(counts.iter().max())]);
    }
    row
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_look_names_what_the_registers_point_at() {
        let answered = json!({
            "ok": true, "cpu": 1, "place": "0x20f6d2 guest::wait+0x2", "state": "held",
            "held_by": { "probe": "queue.visit", "call": "0:0:2" },
            "irqs_on": false, "pending": [253, 2], "in_service": [],
            "callers": ["0x210b9d guest::main+0x1"],
            "registers": { "rax": 7, "rip": 0x20_f6d2 },
            "symbols": { "rip": "guest::wait+0x2" },
        });
        let text = answer(&Ask::Look { cpu: 1 }, &answered);
        assert_eq!(
            text,
            "CPU 1 is held at queue.visit, call 0:0:2, interrupts off\n\
             at 0x20f6d2 guest::wait+0x2\n    \
             called from 0x210b9d guest::main+0x1\n\
             pending 0xfd, 0x02\n\
             rip     0x000000000020f6d2  guest::wait+0x2\n\
             rax     0x0000000000000007"
        );
    }

    #[test]
    fn an_answer_that_lacks_fields_is_shown_without_them() {
        for ask in [Ask::Status, Ask::Stats, Ask::Look { cpu: 0 }, Ask::Deeds] {
            answer(&ask, &json!({ "ok": true }));
        }
        assert_eq!(answer(&Ask::Quit, &json!({ "ok": true })), "ok");
        let refused = answer(&Ask::Quit, &json!({ "ok": false, "error": "no" }));
        assert_eq!(refused, "no");
    }

    #[test]
    fn counts_of_many_cpus_are_summed_up() {
        let vcpus: Vec<_> = (0..9)
            .map(|cpu| json!({ "cpu": cpu, "visits": cpu }))
            .collect();
        let text = answer(&Ask::Stats, &json!({ "ok": true, "vcpus": vcpus }));
        let row = text.lines().find(|line| line.contains("visits")).unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells, ["visits", "36", "0", "8"]);
    }

    #[test]
    fn events_are_sentences() {
        let shown = |event: Value| answer(&Ask::Subscribe { events: vec![] }, &event);
        assert_eq!(
            shown(json!({ "event": "held", "cpu": 2, "held_by": { "address": 16 } })),
            "CPU 2 is held at 0x10"
        );
        let done = json!({
            "event": "done", "cpu": 0, "number": 3, "deed": "call-many", "call": "0:0:1", "result": 0,
        });
        assert_eq!(
            shown(done),
            "CPU 0 has done call-many, its deed 3, call 0:0:1, result 0"
        );
        assert_eq!(
            shown(json!({ "event": "dropped", "count": 4 })),
            "4 events were not read in time"
        );
    }
}
