//! Machines that run on a thread of their own, driven by their operator, and what they leave alone
//! of the process that runs them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::image::bootable;
use vmm::machine::MachineError;
use vmm::machine::kick;
use vmm::machine::lifecycle::State;
use vmm::machine::limits::{self, LimitError};
use vmm::verdict::Kind;
use vmm::{Config, Error, Guest, Operator};

/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(60);

/// A guest that leaves for the VMM again and again, and never ends: out 0x80, al; jmp to the start.
const RESTLESS: &[u8] = b"\xe6\x80\xeb\xfc";

fn config() -> Config {
    Config::new(Guest::bytes("restless", bootable(RESTLESS)))
}

fn has_kvm() -> bool {
    let has = tests::open_kvm().is_ok();
    if !has {
        tests::skip("running machines through the library: no /dev/kvm");
    }
    has
}

/// How often the first vCPU has left the guest for the VMM.
fn exits(operator: &Operator) -> u64 {
    operator.figures().window.exits(0).iter().sum()
}

/// Waits until `is_so` returns `true`.
#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never is");
        thread::yield_now();
    }
}

#[test]
fn it_is_ended_by_who_caught_a_signal_and_tells_what_it_came_to() {
    if !has_kvm() {
        return;
    }
    let machine = vmm::start(&config()).unwrap();
    machine.operator().interrupt(libc::SIGTERM);
    let outcome = machine.wait().unwrap();
    assert_eq!(outcome.report.result, Kind::Interrupted);
    assert_eq!(outcome.report.exit_status, 128 + 15);
    assert_eq!(outcome.guest.name().to_str(), Some("restless"));

    let machine = vmm::start(&config()).unwrap();
    machine.operator().quit();
    let outcome = machine.wait().unwrap();
    assert_eq!(outcome.report.result, Kind::Interrupted);
    assert_eq!(outcome.report.exit_status, 0);
}

#[test]
fn one_that_is_dropped_is_over() {
    if !has_kvm() {
        return;
    }
    let machine = vmm::start(&config().vcpus(2)).unwrap();
    let operator = Arc::clone(machine.operator());
    assert!(!operator.is_gone());
    drop(machine);
    assert!(operator.is_gone() && operator.over().is_some());
    assert!(operator.pause(0).is_err());
}

#[test]
fn its_attendant_comes_before_its_first_instruction() {
    if !has_kvm() {
        return;
    }
    let came = Arc::new(AtomicUsize::new(0));
    let config = config().attended_by({
        let came = Arc::clone(&came);
        move |operator| {
            came.fetch_add(1, Ordering::Relaxed);
            operator.pause(0).unwrap();
        }
    });
    for time in 1..=2 {
        let machine = vmm::start(&config).unwrap();
        assert_eq!(came.load(Ordering::Relaxed), time);
        let operator = machine.operator();
        // It has not executed anything, however long this thread took to get here.
        assert_eq!(operator.state(0).unwrap(), State::Created);
        assert_eq!(exits(operator), 0);
        operator.resume(0).unwrap();
        until(|| exits(operator) > 0);
    }
}

#[test]
fn a_machine_that_cannot_be_is_an_error_before_it_runs() {
    let nowhere = vmm::start(&Config::new("/nowhere/guest.bin")).unwrap_err();
    assert!(nowhere.to_string().starts_with("/nowhere/guest.bin: "));
    let broken = Config::new(Guest::bytes("mine", &b"no image"[..]));
    let broken = vmm::start(&broken).unwrap_err();
    assert!(broken.to_string().starts_with("mine: "), "{broken}");
    assert!(matches!(
        vmm::start(&Config::default()),
        Err(Error::NoGuest)
    ));
    assert!(matches!(
        vmm::start(&config().vcpus(0)),
        Err(Error::Vcpus(0))
    ));
}

/// The signals that `status` lists behind `key`, as a bit for each.
fn signals(status: &str, key: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    let value = value.unwrap_or_else(|| panic!("no {key} in {status}"));
    u64::from_str_radix(value.trim(), 16).unwrap()
}

/// The signals that this process handles, that it ignores, and that any of its threads blocks.
fn disposition() -> [u64; 3] {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut blocked = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        // Other tests in this process end their threads meanwhile.
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        // Where a process has a machine, KVM has a thread of its own in it.
        if !status.starts_with("Name:\tkvm-") {
            blocked |= signals(&status, "SigBlk:");
        }
    }
    [
        signals(&status, "SigCgt:"),
        signals(&status, "SigIgn:"),
        blocked,
    ]
}

/// Waits until the disposition is as expected. A thread that is being started blocks all signals
/// for a moment.
#[track_caller]
fn settle(expected: [u64; 3]) {
    until(|| disposition() == expected);
}

fn open_files() -> [u64; 2] {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for one `rlimit`.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(read, 0);
    [limit.rlim_cur, limit.rlim_max]
}

#[test]
fn the_process_around_it_stays_as_it_is() {
    if !has_kvm() {
        return;
    }
    let [handled, ignored, _] = disposition();
    // Nothing here has asked for a signal to be blocked.
    let blocked = 0;
    let machine = vmm::start(&config().vcpus(3)).unwrap();
    // Only the signal that the machine says it handles is added. Bit 0 is signal 1.
    let own = 1 << (kick::signal() - 1);
    let expected = [handled | own, ignored, blocked];
    settle(expected);
    drop(machine);
    settle(expected);

    // Fewer than a large machine needs, and more than all of these tests have open.
    let few = 150;
    let [_, most] = open_files();
    let limit = libc::rlimit {
        rlim_cur: few,
        rlim_max: most,
    };
    // SAFETY: `limit` is a valid `rlimit`.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0);
    let refused = vmm::start(&config().vcpus(100));
    assert!(matches!(
        refused,
        Err(Error::Machine(MachineError::Limits(
            LimitError::NotRaised { allowed, .. }
        ))) if allowed == few
    ));
    assert_eq!(open_files(), [few, most]);
    limits::raise().unwrap();
    assert_eq!(open_files(), [most, most]);
    drop(vmm::start(&config().vcpus(100)).unwrap());
}
