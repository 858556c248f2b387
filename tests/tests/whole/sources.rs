//! Which sources count what IPIs cost: with tracepoints, without them, and without the permission.
//! Each source must have counted the events of its trial, or say why not, and nothing may be
//! concluded from one that did not.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Run, Vmm, mounts, need_kvm, skip};

/// A change of the process that is about to become the command.
type Change = fn() -> io::Result<()>;

fn with_tracefs() -> io::Result<()> {
    mounts::own(false)?;
    mounts::mount(c"tracefs", c"/sys/kernel/tracing")
}

fn without_tracefs() -> io::Result<()> {
    mounts::own(false)?;
    mounts::mount(c"tmpfs", c"/sys/kernel")
}

fn without_permission() -> io::Result<()> {
    with_tracefs()?;
    // Linux, `include/uapi/linux/capability.h`.
    const SYS_ADMIN: libc::c_ulong = 21;
    const PERFMON: libc::c_ulong = 38;
    for capability in [SYS_ADMIN, PERFMON] {
        // SAFETY: takes numbers only. What is dropped here is not gained by the command that
        // follows.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Runs the command after `change`; `None` if this user cannot make that change.
fn run(arguments: &str, change: Change) -> Option<(Run, Value)> {
    need_kvm();
    let mut probe = Command::new("true");
    // SAFETY: the change makes system calls only and allocates nothing.
    unsafe { probe.pre_exec(change) };
    if let Err(error) = probe.status() {
        skip(&format!(
            "this user cannot change what a process may count: {error}"
        ));
        return None;
    }
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("figures.json");
    let is_bench = arguments.starts_with("bench");
    let mut vmm = Vmm::with(arguments)
        .args(if is_bench {
            &["--json"][..]
        } else {
            &["--stats", "json", "--stats-file"]
        })
        .arg(&path)
        .arg(tests::guest());
    // SAFETY: as above.
    unsafe { vmm.command().pre_exec(change) };
    let run = vmm.run();
    run.ends_with(0);
    let text = fs::read_to_string(&path).expect("figures were written");
    Some((run, serde_json::from_str(&text).expect("they are JSON")))
}

fn source<'a>(figures: &'a Value, name: &str) -> &'a Value {
    let all = figures["sources"].as_array().expect("a list of sources");
    let mut named = all.iter().filter(|source| source["name"] == name);
    named
        .next()
        .unwrap_or_else(|| panic!("no source {name}: {all:?}"))
}

/// Whether the source can be trusted. If it was tried, the result of the trial agrees with that.
fn is_believed(figures: &Value, name: &str) -> bool {
    let source = source(figures, name);
    let is_ok = source["status"] == "ok";
    assert_eq!(source["reason"].is_null(), is_ok, "{source}");
    if let Some(canary) = source["canary"].as_object() {
        let of = |key: &str| canary[key].as_u64().expect("a count");
        let (expected, seen) = (of("expected"), of("seen"));
        assert!(expected > 0);
        let slack = (expected / 100).max(1);
        // Some may count more than the events of the trial, such as exits of the host's own; none
        // may count less.
        if is_ok {
            assert!(seen + slack >= expected, "{source}");
        } else {
            assert!(seen.abs_diff(expected) > slack, "{source}");
        }
    }
    is_ok
}

const ONE_AND_ALL: &str =
    "bench --vcpus 4 --rounds 64 --runs 1 --by ipi --to one,all --receiver halted";

/// What a line says of one side. No count in it is zero.
fn figure(cell: &Value, side: &str, name: &str) -> f64 {
    let counts = &cell["result"]["Ok"][side];
    counts.get(name).and_then(Value::as_f64).unwrap_or(0.0)
}

fn measured(figures: &Value) -> impl Iterator<Item = &Value> {
    let cells = figures["cells"].as_array().expect("lines");
    cells.iter().filter(|cell| cell["result"]["Ok"].is_object())
}

#[test]
fn what_is_believed_is_exact_and_what_is_blind_decides_nothing() {
    let Some((_, figures)) = run(ONE_AND_ALL, with_tracefs) else {
        return;
    };
    let [exits, sent, accepted] =
        ["kvm_exit", "kvm_apic_ipi", "kvm_apic_accept_irq"].map(|name| is_believed(&figures, name));
    let is_known = exits || is_believed(&figures, "exits");
    let mut lines = 0;
    for cell in measured(&figures) {
        lines += 1;
        let cost = &cell["result"]["Ok"];
        let operations = cost["operations"].as_object().expect("what was sent");
        let sends: f64 = operations.values().filter_map(Value::as_f64).sum();
        let is_hypercall = operations.contains_key("pv");
        let near = |seen: f64, expected: f64| {
            assert!(
                (seen - expected).abs() < 0.02,
                "{seen}, not {expected}: {cell}"
            );
        };
        // Where they can be trusted, KVM handles these IPIs, unless the hardware does.
        let by_hand = cost["verdict"]["handling"] == "emulated" || !is_known;
        if sent && by_hand {
            near(figure(cell, "sender", "kvm_apic_ipi"), sends);
        }
        if accepted && by_hand {
            let targets = cost["targets"].as_f64().expect("a number of targets");
            near(figure(cell, "sender", "kvm_apic_accept_irq"), targets);
        }
        let handling = cost["verdict"]["handling"].as_str().expect("a verdict");
        if is_hypercall {
            assert_eq!(handling, "paravirtual");
        } else if !is_known {
            assert_eq!(handling, "unknown", "{cell}");
            assert!(cost["verdict"]["exits_per_send"].is_null());
        } else {
            assert_ne!(handling, "unknown", "{cell}");
        }
        if !exits {
            let counts = cost["sender"].as_object().expect("counts");
            assert!(!counts.keys().any(|name| name.starts_with("kvm_exit")));
        }
    }
    assert!(lines >= 8, "{lines} lines");
}

#[test]
fn a_run_says_what_it_counted_at_tracepoints() {
    let workload = "--vcpus 3 --tracepoints --append workload=stress";
    let Some((_, figures)) = run(workload, with_tracefs) else {
        return;
    };
    assert!(figures["calls"]["ipis_per_call"].as_f64().expect("a ratio") > 0.0);
    if is_believed(&figures, "kvm_apic_ipi") && is_believed(&figures, "kvm_msr") {
        let vcpus = figures["per_vcpu"].as_array().expect("three of them");
        let sum = |name: &str| -> u64 {
            let of = |vcpu: &Value| vcpu["tracepoints"][name].as_u64().expect("a count");
            vcpus.iter().map(of).sum()
        };
        assert!(sum("kvm_apic_ipi") > 0);
        // Where KVM handles every write of the ICR, it counts each.
        assert_eq!(sum("kvm_msr icr"), sum("kvm_apic_ipi"));
    }
    if !is_believed(&figures, "exits") {
        assert!(figures["ipi"]["exits_per_ipi"].is_null());
    }
}

/// The names of the sources, and whether they can be trusted.
fn all(figures: &Value) -> Vec<(String, bool)> {
    let sources = figures["sources"].as_array().expect("a list of sources");
    let names = sources
        .iter()
        .map(|it| it["name"].as_str().expect("a name"));
    names
        .map(|name| (name.to_owned(), is_believed(figures, name)))
        .collect()
}

#[test]
fn no_figure_comes_from_who_was_not_seen_to_count() {
    need_kvm();
    let calls = "--vcpus 2 --append calls=5";
    let run = |more: &str| Vmm::boot(&format!("{calls} {more}")).run();
    let json = run("--stats json");
    let figures = json.ends_with(0).json();
    let sources = all(&figures);
    let is_ok = |name: &str| sources.iter().any(|(it, is_ok)| it == name && *is_ok);
    for vcpu in figures["per_vcpu"].as_array().expect("two of them") {
        for name in vcpu["kvm"].as_object().expect("a map").keys() {
            assert!(is_ok(name), "nobody has tried {name}: {sources:?}");
        }
        assert!(vcpu["tracepoints"].as_object().expect("a map").is_empty());
        // This one works on every host.
        assert!(vcpu["kvm"]["halt_exits"].is_number(), "{vcpu:#}");
    }
    assert_eq!(figures["ipi"]["exits_per_ipi"].is_number(), is_ok("exits"));
    assert_eq!(figures["ipi"]["exits_unknown"].is_null(), is_ok("exits"));

    let table = run("");
    table.ends_with(0);
    let prometheus = run("--stats prometheus");
    prometheus.ends_with(0);
    let samples = &prometheus.stdout;
    // Each run tries again: a source that fails in one run need not fail in the next. So each run
    // is held against what it says itself.
    assert_eq!(
        samples.contains("\nipi_lab_exits_per_ipi "),
        samples.contains("ipi_lab_source_up{source=\"exits\"} 1")
    );
    let left_out = table.stdout.lines();
    let left_out = left_out
        .filter(|line| line.contains("of KVM's statistics these are left out"))
        .collect::<String>();
    for (name, _) in &sources {
        let up = |is: u8| samples.contains(&format!("ipi_lab_source_up{{source=\"{name}\"}} {is}"));
        assert!(up(0) != up(1), "{name}: {samples}");
        if up(0) {
            assert!(!samples.contains(&format!("ipi_lab_kvm_{name}_total")));
        }
        // It has no column, and the reason is given instead.
        // A name can end in another's, as irq_exits does in exits.
        if left_out.contains(&format!(" {name} (")) {
            let title = format!("kvm {}", name.replace('_', " "));
            assert!(!table.stdout.contains(&format!("{title}  ")), "{table}");
        }
    }
    if table.stdout.contains("kvm exits  ") {
        table.says("(KVM binary stats, exits; workload)");
    } else {
        table.says("exits/IPI  not known (KVM's count of exits is ");
    }
}

#[test]
fn scripts_are_told_what_can_be_believed_and_nothing_else() {
    need_kvm();
    let script = r#"
        boot(#{ vcpus: 1, append: "workload=puppet" });
        print(`keys ${cpu(0).kvm().keys()}`);
        finish();
    "#;
    let run = Vmm::scripted(script).args(["--stats", "json"]).run();
    let figures = run.ends_with(0).json();
    for (name, is_ok) in all(&figures) {
        if name != "user" {
            assert_eq!(run.stderr.contains(&format!("\"{name}\"")), is_ok, "{run}");
        }
    }
}

#[test]
fn without_tracefs_it_is_said_how_to_have_it() {
    let Some((run, figures)) = run(ONE_AND_ALL, without_tracefs) else {
        return;
    };
    for name in [
        "kvm_exit",
        "kvm_msr",
        "kvm_apic_ipi",
        "kvm_apic_accept_irq",
        "kvm_eoi",
    ] {
        assert_eq!(source(&figures, name)["status"], "absent");
    }
    run.says("tracefs is not mounted; as root: mount -t tracefs");
    let is_known = is_believed(&figures, "exits");
    for cell in measured(&figures) {
        let handling = &cell["result"]["Ok"]["verdict"]["handling"];
        assert_eq!(
            handling == "unknown",
            !is_known && handling != "paravirtual"
        );
    }
}

#[test]
fn without_the_permission_it_is_said_how_to_get_it() {
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    if paranoid.trim().parse::<i32>().is_ok_and(|level| level < 2) {
        skip("everybody may count on this host");
        return;
    }
    let arguments = "bench --rounds 16 --runs 1 --by ipi --to one --transport x2apic";
    let Some((run, figures)) = run(arguments, without_permission) else {
        return;
    };
    for name in ["kvm_exit", "kvm_msr", "kvm_apic_ipi"] {
        let source = source(&figures, name);
        assert_eq!(source["status"], "denied", "{source}");
        let remedy = source["remedy"].as_str().expect("a way out");
        assert!(remedy.contains("setcap cap_perfmon"), "{remedy}");
    }
    run.says("perf_event_paranoid").says("setcap cap_perfmon");
}
