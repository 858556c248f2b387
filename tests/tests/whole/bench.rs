//! `vmm bench`: every line of its table, on every host; and where the host's architecture says how
//! many exits an IPI costs, that many are counted.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::image::Image;
use tests::{Run, Vmm, need_kvm, skip};

/// How long 10,000 rounds of some lines may take on an emulated host that is also busy with other
/// work.
const LONG: Duration = Duration::from_secs(3600);

use crate::formats::hold_bench;

/// Runs a bench and returns its lines.
fn bench(arguments: &str) -> (Run, Vec<Value>) {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("costs.json");
    let run = Vmm::with("bench")
        .args(arguments.split_whitespace())
        .arg("--json")
        .arg(&path)
        .arg(tests::guest())
        .limit(LONG)
        .run();
    run.ends_with(0);
    let text = fs::read_to_string(&path).expect("figures were written");
    let document: Value = serde_json::from_str(&text).expect("they are JSON");
    hold_bench(&document);
    let cells = document["cells"].as_array().expect("lines").clone();
    assert!(!cells.is_empty());
    (run, cells)
}

/// The value at `pointer` in line `cell`, unless the host cannot do what the line measures.
fn figure(cell: &Value, pointer: &str) -> Option<f64> {
    let cost = cell["result"].get("Ok")?;
    Some(cost.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0))
}

/// Whether every exit of the guest reaches KVM: on an AMD processor that has no IPI handled by its
/// hardware.
fn counts_every_exit() -> bool {
    let avic = fs::read_to_string("/sys/module/kvm_amd/parameters/avic");
    avic.is_ok_and(|avic| matches!(avic.trim(), "N" | "0"))
}

#[test]
fn every_line_is_measured_or_says_why_not() {
    need_kvm();
    let (run, cells) = bench("--vcpus 4 --rounds 16 --runs 2");
    assert!(cells.len() > 50, "{} lines", cells.len());
    for cell in &cells {
        let transport = &cell["cell"]["transport"];
        if let Some(why) = cell["result"]["Err"].as_str() {
            assert!(
                transport == "pv" && why.contains("KVM_HC_SEND_IPI"),
                "{cell}"
            );
            continue;
        }
        assert_eq!(figure(cell, "/all/count"), Some(32.0), "{cell}");
        assert_eq!(
            cell["result"]["Ok"]["medians"].as_array().map(Vec::len),
            Some(2)
        );
        let is_ipi = cell["cell"]["by"] == "ipi";
        let sends = match (cell["cell"]["to"].as_str(), transport.as_str()) {
            (Some("all"), Some("xapic" | "x2apic")) => 3.0,
            _ => 1.0,
        };
        let operations = cell["result"]["Ok"]["operations"].as_object();
        let sent: f64 = operations.map_or(0.0, |by| by.values().filter_map(Value::as_f64).sum());
        assert!(
            !is_ipi || (sent - sends).abs() < 1e-9,
            "{sent} sends: {cell}"
        );
        assert!(figure(cell, "/all/p50/cycles") <= figure(cell, "/all/max/cycles"));
    }
    run.says("shorthand (xapic)").says("fixed-2011");
}

#[test]
fn calls_of_kmalloc_find_memory_however_many_there_are() {
    need_kvm();
    // Far more rounds than its heap has elements. Without memory each target would get a second
    // IPI, so that the caller can leave its stack frame. With memory, other CPUs get one now and
    // then for a grace period.
    let kmalloc = "--by call --to some,all --queue kmalloc --receiver halted";
    let (_, cells) = bench(&format!("--vcpus 5 --rounds 200 --runs 1 {kmalloc}"));
    assert_eq!(cells.len(), 2);
    for cell in &cells {
        let sent = figure(cell, "/operations/x2apic").expect("it works here");
        let targets = figure(cell, "/targets").expect("it works here");
        assert!(sent < 1.5 * targets, "{sent} sends: {cell}");
    }
}

/// Rounds in which exits are counted, from `BENCH_ROUNDS`; by default as many as an emulated host
/// does in a minute.
fn rounds() -> u32 {
    let given = env::var("BENCH_ROUNDS").ok();
    given.map_or(500, |rounds| {
        let number = rounds.parse();
        number.unwrap_or_else(|_| panic!("BENCH_ROUNDS: \"{rounds}\" is not a number"))
    })
}

/// Checks a figure that the architecture determines.
#[track_caller]
fn near(seen: f64, expected: f64, what: &str, cell: &Value) {
    let limit = 0.08 * expected.max(1.0);
    assert!(
        (seen - expected).abs() < limit,
        "{seen} {what}, not {expected}: {cell}"
    );
}

/// What `side` of a line that works on this host counted under `name`.
fn of(cell: &Value, side: &str, name: &str) -> f64 {
    let figure = figure(cell, &format!("/{side}/{name}"));
    figure.unwrap_or_else(|| panic!("it works here: {cell}"))
}

/// Interrupts of the host at the sender. KVM's own count of them is left out where none came while it
/// was tried; the tracepoint has them too.
fn interrupts(cell: &Value) -> f64 {
    match of(cell, "sender", "irq_exits") {
        0.0 => of(cell, "sender", "kvm_exit interrupt"),
        counted => counted,
    }
}

fn transport(cell: &Value) -> &str {
    cell["cell"]["transport"].as_str().expect("a transport")
}

/// Why nothing is known of exits on this host, unless each reaches KVM.
fn need_every_exit() -> bool {
    if !counts_every_exit() {
        skip("exits of the architecture: this host's KVM does not count each, or spares some");
    }
    counts_every_exit()
}

#[test]
fn each_exit_of_a_sender_is_counted() {
    need_kvm();
    if !need_every_exit() {
        return;
    }
    // The receivers are stalled, so all exits are those of the sender's sends.
    let rounds = rounds();
    let (_, cells) = bench(&format!(
        "--rounds {rounds} --runs 1 --by ipi --receiver stalled"
    ));
    assert_eq!(cells.len(), 4);
    for cell in &cells {
        let (expected, reason, handling) = match transport(cell) {
            "xapic" => (2.0, "npf", "emulated"),
            "pv" => (1.0, "hypercall", "paravirtual"),
            _ => (1.0, "msr", "emulated"),
        };
        near(of(cell, "sender", "exits"), expected, "exits", cell);
        let named = format!("kvm_exit {reason}");
        near(of(cell, "sender", &named), expected, &named, cell);
        near(of(cell, "sender", "kvm_exit"), expected, "kvm_exit", cell);
        near(
            of(cell, "sender", "kvm_apic_accept_irq"),
            1.0,
            "accepted",
            cell,
        );
        // A hypercall does not write the APIC's ICR.
        let commands = if reason == "hypercall" { 0.0 } else { 1.0 };
        near(
            of(cell, "sender", "kvm_apic_ipi"),
            commands,
            "commands",
            cell,
        );
        let verdict = &cell["result"]["Ok"]["verdict"];
        assert_eq!(verdict["handling"], handling, "{cell}");
        assert_eq!(verdict["source"], "kvm_exit", "{cell}");
        let per_send = verdict["exits_per_send"].as_f64().expect("a figure");
        near(per_send, expected, "exits per send", cell);
    }
}

#[test]
fn each_exit_of_a_receiver_is_counted() {
    need_kvm();
    if !need_every_exit() {
        return;
    }
    // The `hlt`, and the end of the interrupt unless it is in memory.
    let rounds = rounds();
    for (options, ends) in [("", 1.0), ("--append eoi=pv", 0.0)] {
        let one = "--runs 1 --by ipi --to one --receiver halted --transport x2apic,xapic";
        let (_, cells) = bench(&format!("--rounds {rounds} {one} {options}"));
        assert_eq!(cells.len(), 2);
        for cell in &cells {
            let end = match transport(cell) {
                "xapic" => "kvm_exit npf",
                _ => "kvm_exit msr",
            };
            near(of(cell, "receivers", "exits"), 1.0 + ends, "exits", cell);
            near(of(cell, "receivers", "halt_exits"), 1.0, "halt_exits", cell);
            near(of(cell, "receivers", "kvm_exit hlt"), 1.0, "hlt", cell);
            near(of(cell, "receivers", end), ends, end, cell);
        }
    }
}

#[test]
fn each_exit_of_a_broadcast_is_counted() {
    need_kvm();
    if !need_every_exit() {
        return;
    }
    // One operation by a shorthand, a cluster or a hypercall.
    let rounds = rounds();
    let all = "--vcpus 4 --runs 1 --by ipi --to all --receiver halted";
    let (_, cells) = bench(&format!("--rounds {rounds} {all}"));
    for cell in &cells {
        let (expected, reason) = match (transport(cell), cell["cell"]["apic"].as_str()) {
            ("xapic", _) => (6.0, "npf"),
            ("x2apic", _) => (3.0, "msr"),
            ("pv", _) => (1.0, "hypercall"),
            (_, Some("xapic")) => (1.0, "npf"),
            _ => (1.0, "msr"),
        };
        let named = format!("kvm_exit {reason}");
        near(of(cell, "sender", &named), expected, &named, cell);
        near(
            of(cell, "sender", "kvm_apic_accept_irq"),
            3.0,
            "accepted",
            cell,
        );
        // KVM's own count has no names for these. How many interrupts of the host hit the sender
        // depends on how long it has the processor, and how often it reports that it waits depends
        // on how long it waits.
        let others = ["io_exits", "halt_exits", "pf_taken"];
        let others: f64 = others.iter().map(|name| of(cell, "sender", name)).sum();
        let left = of(cell, "sender", "exits") - others - interrupts(cell);
        near(left, expected, "exits that are left", cell);
    }
}

#[test]
fn each_exit_of_a_large_broadcast_is_counted() {
    need_kvm();
    if !need_every_exit() {
        return;
    }
    // CPUs 1 to 139: in nine clusters of 16, and two bitmaps of 128. A few rounds are enough:
    // nothing else has these names.
    let all = "--vcpus 140 --rounds 8 --runs 1 --by ipi --to all --receiver halted";
    let (_, cells) = bench(&format!("{all} --transport x2apic-cluster,pv"));
    assert_eq!(cells.len(), 2);
    for cell in &cells {
        let (expected, named) = match transport(cell) {
            "pv" => (2.0, "kvm_exit hypercall"),
            _ => (9.0, "kvm_exit msr"),
        };
        near(of(cell, "sender", named), expected, named, cell);
        let accepted = of(cell, "sender", "kvm_apic_accept_irq");
        near(accepted, 139.0, "accepted", cell);
    }
}

#[test]
fn an_earlier_result_stands_beside_the_new_one() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("before.json");
    let some = "bench --rounds 16 --runs 1 --to one --receiver halted --transport x2apic";
    let run = Vmm::with(some)
        .arg("--json")
        .arg(&path)
        .arg(tests::guest())
        .run();
    run.ends_with(0);
    let beside = |options: &str| {
        let bench = Vmm::with(options).arg("--baseline").arg(&path);
        bench.arg(tests::guest()).run()
    };
    let run = beside(some);
    run.ends_with(0).says("now/was");
    assert!(!run.stdout.contains("was 16, is"), "{run}");
    beside(&some.replace("--rounds 16", "--rounds 17"))
        .ends_with(0)
        .says("rounds     was 16, is 17");
    beside(&some.replace("--to one", "--to all"))
        .ends_with(0)
        .says("baseline   has none of these lines");
    fs::write(&path, "{}").expect("room for two bytes");
    beside(some)
        .ends_with(2)
        .complains_of("no result of vmm bench");
}

#[test]
fn the_classic_rows_are_those_of_2017() {
    need_kvm();
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("classic.json");
    for (vcpus, more) in [
        (4, ""),
        (2, "--receiver running --queue llist --transport x2apic"),
    ] {
        let run = Vmm::with(&format!(
            "bench --classic --vcpus {vcpus} --rounds 40 --runs 2 {more}"
        ))
        .arg("--json")
        .arg(&path)
        .arg(tests::guest())
        .limit(LONG)
        .run();
        run.ends_with(0).says("broadcast-lock");
        let text = fs::read_to_string(&path).expect("figures were written");
        let document: Value = serde_json::from_str(&text).expect("they are JSON");
        hold_bench(&document);
        let rows = document["classic"].as_array().expect("rows");
        let names: Vec<_> = rows.iter().map(|row| row["cell"]["row"].as_str()).collect();
        let expected = ["dry-run", "self", "normal", "broadcast", "broadcast-lock"];
        assert_eq!(names, expected.map(Some));
        let of = |row: &Value, pointer: &str| {
            let figure = row["result"]["Ok"].pointer(pointer);
            let figure = figure.and_then(Value::as_f64);
            figure.unwrap_or_else(|| panic!("no {pointer}: {row}"))
        };
        for (row, name) in rows.iter().zip(expected) {
            // The first column is of the functions that take the time: as published, 0 of others.
            let is_timed = ["self", "normal"].contains(&name);
            let delivered = of(row, "/delivered/cycles");
            assert_eq!(delivered > 0.0, is_timed, "{row}");
            assert!(delivered < of(row, "/total/cycles"), "{row}");
            let runs = row["result"]["Ok"]["total_runs"].as_array();
            assert_eq!(runs.map(Vec::len), Some(2));
        }
        assert!((of(&rows[0], "/total_to_dry_run") - 1.0).abs() < 1e-9);
        // The guest says itself what it has repeated.
        for (row, name) in rows.iter().zip(expected) {
            assert_eq!(row["result"]["Ok"]["words"]["classic"], name, "{run}");
        }
    }
    let stalled = "bench --classic --receiver stalled";
    let run = Vmm::with(stalled).arg(tests::guest()).run();
    run.ends_with(2).complains_of("nothing is left to measure");
}

#[test]
fn a_guest_without_the_classic_loops_is_refused() {
    let run = Vmm::with("bench --classic")
        .arg(tests::other_image("sum.bin"))
        .run();
    run.ends_with(2).complains_of("manifest");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let missing = Path::new("/nowhere/guest.bin");
    Vmm::with("bench")
        .arg(missing)
        .run()
        .ends_with(2)
        .complains_of("cannot read");
    let none = "bench --to self --queue filo";
    let run = Vmm::with(none).arg(tests::guest()).run();
    run.ends_with(2).complains_of("nothing is left to measure");
    need_kvm();
    let vain = "bench --vcpus 2 --to one --by ipi --receiver halted --append queue=none";
    let run = Vmm::with(vain).arg(tests::guest()).run();
    run.ends_with(2).says("not measured: ");
}

#[test]
fn a_signal_ends_it_with_its_own_status() {
    need_kvm();
    let running = Vmm::with("bench --vcpus 2 --rounds 1000000")
        .arg(tests::guest())
        .start();
    // That of the background, the first machine.
    running.wait_for_thread("vcpu1");
    running.signal(libc::SIGTERM);
    running.finish().ends_with(128 + libc::SIGTERM);
}

#[test]
fn a_guest_that_does_not_say_how_it_is_measured_is_refused() {
    let image = Image::that_says_nothing(&tests::guest());
    let run = Vmm::with("bench").arg(image.path()).run();
    run.ends_with(2).says("docs/manifest.md");
    for missing in ["\"to\"", "\"rounds\"", "\"start\""] {
        run.says(missing);
    }
    assert_eq!(run.stdout, "");
}
