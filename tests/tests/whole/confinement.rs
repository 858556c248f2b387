//! That a real process is confined, with each of its threads; and what becomes of one that comes to a
//! limit of its own, on memory, stack or open files. What each kind of thread must not do is tried in `vmm/tests`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::{Vmm, need_kvm};

use super::control::Bench;
use super::explore::{SHRINKING_MASK, Workspace};

/// What the kernel says of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limits {
    no_new_privileges: bool,
    filters: u32,
    capabilities: bool,
}

/// The threads of the process by name, without the numbers of vCPUs.
fn threads(pid: u32) -> BTreeMap<String, Limits> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let tasks = tasks.filter_map(Result::ok);
    let of = |task: &Path| {
        // One that has ended meanwhile says nothing.
        let status = fs::read_to_string(task.join("status")).ok()?;
        let field = |name: &str| {
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            value.unwrap_or_else(|| panic!("no {name}: {status}"))
        };
        let name = field("Name").trim_end_matches(|last: char| last.is_ascii_digit());
        let limits = Limits {
            no_new_privileges: field("NoNewPrivs") == "1",
            filters: field("Seccomp_filters").parse().expect("a number"),
            capabilities: field("CapPrm").chars().any(|digit| digit != '0'),
        };
        Some((name.to_owned(), limits))
    };
    tasks.filter_map(|task| of(&task.path())).collect()
}

/// The machine waits at its script for a client, so that all threads are there.
#[test]
fn every_thread_of_a_run_is_confined() {
    let bench = Bench::boot("--vcpus 2", "workload=puppet");
    let _client = bench.connect();
    for thread in ["events", "vcpu1", "client", "sender", "signals", "control"] {
        bench.running.wait_for_thread(thread);
    }
    // The last thread may not have begun to limit itself.
    bench.running.wait_for("CPUs up");
    let threads = threads(bench.running.id());
    let own = |name: &str| {
        let limits = threads
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {threads:?}"));
        assert!(limits.no_new_privileges, "{name}: {limits:?}");
        assert!(!limits.capabilities, "{name}: {limits:?}");
        limits.filters
    };
    // That of clone3, and that of the main thread; then one for each kind, on top of those of the
    // thread that has started it.
    assert_eq!(own("vmm"), 2, "{threads:?}");
    for name in ["events", "vcpu", "signals", "control"] {
        assert_eq!(own(name), 3, "{name}: {threads:?}");
    }
    assert_eq!(own("client"), 4, "{threads:?}");
    assert_eq!(own("sender"), 5, "{threads:?}");
}

#[test]
fn a_run_without_seccomp_has_no_filters_and_no_privileges_either() {
    let bench = Bench::boot("--no-seccomp", "workload=puppet");
    bench.running.wait_for("CPUs up");
    for (name, limits) in threads(bench.running.id()) {
        // KVM starts threads of its own in the process.
        if !name.starts_with("kvm") {
            assert_eq!(limits.filters, 0, "{name}");
            assert!(
                limits.no_new_privileges && !limits.capabilities,
                "{name}: {limits:?}"
            );
        }
    }
}

/// Whatever the limit, the machine runs or is refused.
#[test]
fn a_host_without_memory_refuses_the_machine() {
    need_kvm();
    let mut refused = 0;
    let mut ran = 0;
    // In KiB, around what the threads of 16 vCPUs take beside the guest's memory.
    for limit in (160_000..260_000).step_by(6_000).chain([500_000, 600_000]) {
        let mut vmm = Vmm::boot("--vcpus 16 --append workload=nonsense");
        limited(&mut vmm, libc::RLIMIT_AS, [limit << 10; 2]);
        let run = vmm.run();
        match run.status() {
            // The guest has run, and does not know that workload.
            2 => ran += 1,
            3 => {
                refused += 1;
                assert!(run.stderr.contains("memory"), "{limit} KiB: {run}");
                assert!(!run.stdout.contains("CPUs up"), "{limit} KiB: {run}");
            }
            other => panic!("{limit} KiB: status {other}: {run}"),
        }
    }
    assert!(refused > 2 && ran > 2, "{refused} refused, {ran} ran");
}

/// Whatever the limit, the search is refused, or stops with what it has seen.
#[test]
fn a_search_near_the_limit_on_memory_stops() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let mut refused = 0;
    let mut near = 0;
    let mut searched = 0;
    // In KiB, around what two machines, and four, take beside each other.
    let limits = |from: u64, to| (from..to).step_by(5_000);
    let two = limits(80_000, 120_000).map(|limit| (2, limit));
    for (jobs, limit) in two.chain(limits(130_000, 190_000).map(|limit| (4, limit))) {
        let options = format!("--strategy exhaustive --max-states 100 --jobs {jobs}");
        let mut vmm = workspace.explore(&options);
        limited(&mut vmm, libc::RLIMIT_AS, [limit << 10; 2]);
        let run = vmm.run();
        match run.status() {
            3 => {
                refused += 1;
                assert!(run.stderr.contains("memory"), "{limit} KiB: {run}");
            }
            5 if run
                .stdout
                .contains("near the limit on its memory (ulimit -v)") =>
            {
                near += 1;
            }
            5 => searched += 1,
            other => panic!("{jobs} jobs, {limit} KiB: status {other}: {run}"),
        }
    }
    assert!(
        refused > 2 && near > 2 && searched > 2,
        "{refused} refused, {near} near the limit, {searched} not"
    );
}

#[test]
fn a_stack_is_raised_where_it_may_be() {
    need_kvm();
    let with = |words: &str, hard| {
        let mut vmm = Vmm::with(words);
        limited(&mut vmm, libc::RLIMIT_STACK, [64 << 10, hard]);
        vmm
    };
    for hard in [libc::RLIM_INFINITY, 1 << 20] {
        let run = with("--vcpus 2", hard).arg(tests::guest()).run();
        run.ends_with(0).says("pass: ");
        with("--help", hard).run().ends_with(0);
    }
    for words in ["--help", "describe"] {
        let run = with(words, 64 << 10).arg(tests::guest()).run();
        run.ends_with(3).complains_of("64 KiB of stack");
    }
}

/// Which file it is that cannot be opened depends on how many can.
#[test]
fn too_few_open_files_are_a_lack_of_the_host() {
    need_kvm();
    let folder = tempfile::tempdir().expect("a folder");
    let case = folder.path().join("a.case");
    fs::write(&case, "cpus 1\n0: all\n").expect("room for a case");
    let (case, guest) = (
        case.display().to_string(),
        tests::guest().display().to_string(),
    );
    let report = folder.path().join("report").display().to_string();
    let mut refused = 0;
    for words in [
        [&*guest].as_slice(),
        &["--report", &report, &guest],
        &["--script", &case, &guest],
        &["describe", &guest],
        &["probes", &guest],
        &["explore", &case, &guest],
        &["replay", &case, &guest],
        &["compare", &case, &case],
        &["merge", &case],
        &["bench", &guest],
        &["bench", "--baseline", &case, &guest],
    ] {
        // With three, and none open but the standard streams, no program is loaded.
        for files in 4..12 {
            for more in ["--no-landlock", "--log=warn"] {
                let mut vmm = Vmm::new().args(words).arg(more);
                limited(&mut vmm, libc::RLIMIT_NOFILE, [files; 2]);
                let run = vmm.run();
                assert!(!run.stderr.contains("Permission denied"), "{files}: {run}");
                if run.stderr.contains("Too many open files") {
                    run.ends_with(3);
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 11, "{refused} refused");
}

/// As `ulimit` does it, with a soft and a hard limit.
fn limited(vmm: &mut Vmm, resource: libc::__rlimit_resource_t, [soft, hard]: [u64; 2]) {
    use std::os::unix::process::CommandExt;
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    let set = move || {
        // SAFETY: `limit` is a valid `rlimit`, and lives until the call returns.
        match unsafe { libc::setrlimit(resource, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it only calls setrlimit(), which is async-signal-safe.
    unsafe { vmm.command().pre_exec(set) };
}

/// Where temporary files are, all may be written, so these are somewhere else.
#[test]
fn what_links_and_pipes_without_a_name_lead_to_can_be_written_and_read() {
    need_kvm();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["temporary", "outputs", "others", "images"] {
        fs::create_dir(at(name)).expect("a folder");
    }
    let vmm = |words: &str| {
        let mut vmm = Vmm::with(words);
        vmm.command().env("TMPDIR", at("temporary"));
        vmm
    };
    // Standard output is a pipe here.
    let run = vmm("--stats json --stats-file /dev/stdout")
        .arg(tests::guest())
        .run();
    run.ends_with(0).says("{\"schema\":\"ipi-lab/3\"");
    std::os::unix::fs::symlink("../others/new", at("outputs/link")).expect("a link");
    let run = vmm("--stats json --stats-file")
        .arg(at("outputs/link"))
        .arg(tests::guest())
        .run();
    run.ends_with(0);
    assert!(at("others/new").is_file(), "{run}");
    // A link to nothing yet, and what it leads to, are one output.
    std::os::unix::fs::symlink("both", at("outputs/first")).expect("a link");
    let run = vmm("--stats json --stats-file")
        .arg(at("outputs/first"))
        .arg("--report")
        .arg(at("outputs/both"))
        .arg(tests::guest())
        .run();
    run.ends_with(2).complains_of("named for two outputs");
    std::os::unix::fs::symlink(tests::guest(), at("images/guest.bin")).expect("a link");
    let mut by_path = vmm("");
    by_path.command().env("VMM_GUEST_PATH", at("images"));
    by_path.command().current_dir(at("others"));
    by_path.run().ends_with(0).says("pass: ");
    // Root keeps what it needs to see that others' files are there.
    // SAFETY: has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        fs::copy(tests::guest(), at("images/own.bin")).expect("room for an image");
        const NOBODY: Option<u32> = Some(65534);
        std::os::unix::fs::chown(at("images"), NOBODY, NOBODY).expect("root may");
        fs::set_permissions(at("images"), fs::Permissions::from_mode(0o700)).expect("root may");
        vmm("").arg(at("images/own.bin")).run().ends_with(0);
    }
}
