//! Load: many CPUs, many runs, many commands, a disk that fills up at any write, and kills at any
//! moment. Nothing hangs, nothing is torn, nothing is left over. `make load` runs the amounts of
//! docs/security.md, and prints its figures; otherwise they are small.

use std::env;
use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tests::{Run, Vmm, mounts, need_kvm, skip};

use super::control::{Bench, Client};
use super::files::{EARLIER, OF_A_RUN, Outputs, run_to};

/// How much of something there is: the second where `LOAD` is set.
fn amount(short: u64, long: u64) -> u64 {
    match env::var_os("LOAD") {
        None => short,
        Some(_) => long,
    }
}

/// A number of the process, in KiB, by its name in `/proc/PID/status`.
fn kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let mut lines = status.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let found = found.and_then(|text| text.split_whitespace().next());
    found.expect(name).parse().expect("a number")
}

#[test]
fn many_cpus_are_stalled_and_paused_all_at_once_while_they_work() {
    let (vcpus, seconds, pauses) = (amount(48, 1000), amount(1, 60), amount(3, 20));
    let begun = Instant::now();
    let bench = Bench::boot_within(
        Duration::from_secs(amount(120, 1800)),
        &format!("--vcpus {vcpus} --steal seed=7,mean=2ms,share=20%"),
        &format!("workload=stress for={seconds}s"),
    );
    let mut client = bench.connect();
    client.well(&json!({ "verb": "ready", "limit": 600 }));
    let boot = begun.elapsed();
    let mut took = [Duration::ZERO; 2];
    for _ in 0..pauses {
        let asked = Instant::now();
        let paused = client.ask(&json!({ "verb": "pause_all" }));
        if paused["ok"] == false {
            // The workload is over.
            break;
        }
        took[0] = took[0].max(asked.elapsed());
        let status = client.well(&json!({ "verb": "status" }));
        for vcpu in status["vcpus"].as_array().expect("the vCPUs") {
            let state = vcpu["state"].as_str().expect("a state");
            assert!(["paused", "created", "exited"].contains(&state), "{vcpu}");
        }
        let asked = Instant::now();
        client.well(&json!({ "verb": "resume_all" }));
        took[1] = took[1].max(asked.elapsed());
    }
    let peak = kib(bench.running.id(), "VmHWM");
    let run = bench.running.finish();
    run.ends_with(0).says("pass: ");
    // All that is not the guest's own memory.
    assert!(peak < 1 << 20, "{peak} KiB");
    println!(
        "{vcpus} vCPUs: ready after {boot:.1?}, all paused within {:.1?}, resumed within {:.1?}, over after {:.1?}, at most \
         {} MiB",
        took[0],
        took[1],
        run.elapsed,
        peak >> 10
    );
}

#[test]
fn runs_in_a_row_leave_nothing() {
    need_kvm();
    let runs = amount(4, 1000);
    let folder = TempDir::new().expect("a temporary directory");
    let begun = Instant::now();
    for _ in 0..runs {
        let mut vmm = Vmm::boot("--vcpus 16");
        vmm.command().env("TMPDIR", folder.path());
        vmm.run().ends_with(0).says("pass: ");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    println!("{runs} runs of 16 vCPUs in {:.0?}", begun.elapsed());
}

/// A value for the field of a request: mostly one that makes sense there.
fn value(field: &str, random: &mut Rng) -> Value {
    if random.u8(0..16) == 0 {
        let odd = [
            json!(null),
            json!(-1),
            json!(1e300),
            json!("\u{1b}[2J"),
            json!([[]]),
            json!({}),
            json!(u64::MAX),
        ];
        return random.choice(odd).expect("some");
    }
    let text = |of: &[&str], random: &mut Rng| json!(random.choice(of).expect("some"));
    match field {
        "cpu" | "from" | "to" => json!(random.u32(0..5)),
        "milliseconds" => json!(random.u32(0..3)),
        "cpus" => json!([random.u32(0..5), random.u32(0..5)]),
        "count" | "nth" | "number" => json!(random.u32(0..4)),
        "call" => json!(format!("{}:0:{}", random.u32(0..4), random.u32(0..9))),
        "on" => json!(random.bool()),
        "until" => text(&["made", "done"], random),
        "events" => json!([text(&["held", "done", "finding"], random)]),
        "probe" => text(
            &["queue.visit", "ipi.receive", "call.run", "no.such"],
            random,
        ),
        "at" => text(&["0x200000", "memcpy", "nowhere"], random),
        "oracle" => text(&["lost", "hang", "no-such"], random),
        "vector" => text(&["single", "0xfb", "init", "none"], random),
        "deed" => text(
            &[
                "call-single 1",
                "call-many 1,2,3",
                "call-all",
                "irqs-off",
                "irqs-on",
                "idle",
                "spin",
                "no such",
                "call-single 99",
            ],
            random,
        ),
        other => panic!("no value for the field {other}"),
    }
}

/// A request with this verb and those of its fields, of which some are in brackets.
fn request(verb: &str, fields: &str, random: &mut Rng) -> Value {
    let mut request = Map::from_iter([("verb".to_owned(), json!(verb))]);
    for field in fields.split(", ").filter(|field| !field.is_empty()) {
        let name = field.trim_matches(['[', ']']);
        // One that waits must not do so without a limit.
        let is_left_out = match name {
            "limit" => false,
            _ if name == field => random.u8(0..32) == 0,
            _ => random.bool(),
        };
        if !is_left_out {
            let drawn = match name {
                "limit" => json!(0.001),
                _ => value(name, random),
            };
            request.insert(name.to_owned(), drawn);
        }
    }
    request.into()
}

/// Sends this many requests, in pieces, and reads the answer to each.
fn ask_at_random(mut client: Client, requests: u64, seed: u64, refused: &AtomicU64) {
    let mut random = Rng::with_seed(seed);
    let verbs = client.well(&json!({ "verb": "verbs" }));
    let verbs: Vec<(&str, &str)> = (verbs["verbs"].as_object().expect("verbs").iter())
        .map(|(verb, fields)| (&**verb, fields.as_str().expect("their fields")))
        .filter(|(verb, _)| !["quit", "finish"].contains(verb))
        .collect();
    assert!(verbs.len() > 30, "{verbs:?}");
    let mut left = requests;
    while left > 0 {
        let piece = left.min(32);
        left -= piece;
        let lines = (0..piece).map(|id| {
            let (verb, fields) = *random.choice(&verbs).expect("some");
            let mut request = request(verb, fields, &mut random);
            request["id"] = json!(id);
            format!("{request}\n")
        });
        client.send(lines.collect::<String>().as_bytes());
        for id in 0..piece {
            let answer = loop {
                let line = client.answer();
                if line["event"].is_null() {
                    break line;
                }
            };
            assert_eq!(answer["id"], id, "{answer}");
            let is_well = answer["ok"].as_bool().expect("an answer");
            assert!(is_well || answer["error"].is_string(), "{answer}");
            refused.fetch_add(u64::from(!is_well), Ordering::Relaxed);
        }
    }
}

#[test]
fn commands_at_random_are_all_answered() {
    let each = amount(500, 250_000);
    let bench = Bench::boot_within(
        Duration::from_secs(amount(120, 7200)),
        "--vcpus 4",
        "workload=puppet transport=wire",
    );
    bench
        .connect()
        .well(&json!({ "verb": "ready", "limit": 60 }));
    let (begun, refused) = (Instant::now(), AtomicU64::new(0));
    let pid = bench.running.id();
    let before = kib(pid, "VmRSS");
    let all_are_answered = thread::scope(|scope| {
        let clients = (0..4).map(|seed| {
            let (client, refused) = (bench.connect(), &refused);
            scope.spawn(move || ask_at_random(client, each, seed, refused))
        });
        let clients: Vec<_> = clients.collect();
        let ends: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        ends.iter().all(Result::is_ok)
    });
    if !all_are_answered {
        bench.running.signal(libc::SIGTERM);
        panic!("{}", bench.running.finish());
    }
    let took = begun.elapsed();
    let grown = kib(pid, "VmRSS").saturating_sub(before);
    let refused = refused.into_inner();
    assert!(refused < 4 * each, "all was refused");
    assert!(grown < 128 << 10, "{grown} KiB more");
    let quit = bench.connect().ask(&json!({ "verb": "quit" }));
    assert_eq!(quit["ok"], true, "{quit}");
    // What was let break, lost or abandoned decides how it is judged.
    let run = bench.running.finish();
    assert!([0, 1].contains(&run.status()), "{run}");
    println!(
        "{} commands in {took:.0?}, of which {refused} were refused; {grown} KiB more than before",
        4 * each
    );
}

/// Whether the file is of the run that has just ended, whole, and not of the earlier one. Anything
/// else panics.
#[track_caller]
fn is_new(outputs: &Outputs, name: &str, run: &Run) -> bool {
    let text = outputs.text(name);
    if text == EARLIER {
        return false;
    }
    let is_whole = match name {
        "report" => text.ends_with("</html>\n"),
        _ => serde_json::from_str::<Value>(&text).is_ok(),
    };
    assert!(is_whole, "{name} is torn: {run}");
    true
}

/// A disk with this many pages of room, for the rest of this thread's life.
fn mount_disk(at: &Path, pages: u64) -> std::io::Result<()> {
    let place = CString::new(at.as_os_str().as_encoded_bytes()).expect("a path");
    let options = CString::new(format!("size={}", pages * 4096)).expect("options");
    mounts::own(false)?;
    mounts::mount_with(c"tmpfs", &place, &options)
}

/// The three files of a run, on a disk that is full after so many pages. Whether there was room for
/// all; `None` if this host lets nobody mount a disk.
fn run_on_a_disk(pages: u64) -> Option<bool> {
    thread::spawn(move || {
        let outputs = Outputs::new(&[]);
        if let Err(error) = mount_disk(outputs.at("").as_path(), pages) {
            skip(&format!("a disk that fills up: {error}"));
            return None;
        }
        outputs.put_earlier(&OF_A_RUN);
        let run = run_to(&outputs).run();
        run.says("pass: ");
        let new = OF_A_RUN.map(|name| is_new(&outputs, name, &run));
        assert_eq!(outputs.names(), OF_A_RUN, "{run}");
        let is_all_new = new == [true; OF_A_RUN.len()];
        if !is_all_new {
            run.says("cannot write").says("No space left on device");
        }
        run.ends_with(if is_all_new { 0 } else { 3 });
        Some(is_all_new)
    })
    .join()
    .unwrap_or_else(|failed| std::panic::resume_unwind(failed))
}

#[test]
fn a_disk_may_be_full_at_any_write() {
    need_kvm();
    let (mut pages, mut runs) = (OF_A_RUN.len() as u64, 0);
    loop {
        match run_on_a_disk(pages) {
            None => return,
            Some(true) => break,
            Some(false) => runs += 1,
        }
        pages += amount(pages, 1);
        assert!(pages < 1 << 16, "such files are not that large");
    }
    assert!(runs > 1, "no disk was too small");
    println!(
        "{runs} runs on disks of {} pages to {pages}",
        OF_A_RUN.len()
    );
}

#[test]
fn a_run_may_be_killed_at_any_moment() {
    need_kvm();
    let kills = amount(5, 100);
    let outputs = Outputs::new(&OF_A_RUN);
    let socket = outputs.at("control");
    let vmm = || run_to(&outputs).arg("--control").arg(&socket);
    let whole = vmm().run();
    whole.ends_with(0);
    let mut random = Rng::with_seed(19);
    let mut killed = 0;
    for _ in 0..kills {
        let mut running = vmm().start();
        thread::sleep(whole.elapsed.mul_f64(random.f64()));
        if !running.has_ended() {
            running.signal(libc::SIGKILL);
            killed += 1;
        }
        let run = running.finish();
        for name in OF_A_RUN {
            is_new(&outputs, name, &run);
        }
    }
    assert!(killed > 0, "every run was over before");
    let next = vmm().run();
    next.ends_with(0).says("pass: ");
    assert_eq!(outputs.names(), OF_A_RUN, "{next}");
    println!("{killed} runs were killed");
}
