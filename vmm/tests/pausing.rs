//! Pausing the vCPUs of a real machine through the library. Every vCPU of the guest counts in
//! memory and leaves the guest all the time, so that requests fall between the check and the entry
//! as well.

mod machine;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tests::image::{CODE, Image as File, Segment, elf};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm::machine::Machine;
use vmm::machine::lifecycle::{Exited, Stall, State};
use vmm::machine::message::{OnMessage, Reaction};
use vmm::machine::pause_error::PauseError;
use vmm::machine::threads::{End, Event, VcpuThreads};
use vmm::machine::vm::Vm;

const PAUSED: State = State::Stalled(Stall::Paused);
const SOON: Duration = Duration::from_secs(60);
/// Where the first vCPU counts, and behind it the others together.
const COUNTS: u64 = 0x5000;
/// Where the others start, in real mode.
const OTHERS: u32 = 0x8000;

/// A guest whose first vCPU starts the others. When the word before the counts is set, it ends.
fn guest() -> File {
    let first = [
        // mov dword [0xfee00300], INIT, then SIPI to 0x8000, to all but itself
        &b"\xc7\x05\x00\x03\xe0\xfe\x00\x45\x0c\x00"[..],
        b"\xc7\x05\x00\x03\xe0\xfe\x08\x46\x0c\x00",
        // again: lock inc dword [0x5000]
        b"\xf0\xff\x05\x00\x50\x00\x00",
        // mov al, [0x4ffc]; test al, al; jnz end
        b"\xa0\xfc\x4f\x00\x00\x84\xc0\x75\x04",
        // out 0x80, al; jmp again
        b"\xe6\x80\xeb\xea",
        // end: mov al, 0x10; out 0xf4, al
        b"\xb0\x10\xe6\xf4",
    ];
    let others = [
        // xor ax, ax; mov ds, ax
        &b"\x31\xc0\x8e\xd8"[..],
        // again: lock inc dword [0x5004]; out 0x80, al; jmp again
        b"\xf0\x66\xff\x06\x04\x50\xe6\x80\xeb\xf6",
    ];
    File::new(&elf(&[
        Segment::load(OTHERS.into(), &others.concat()),
        Segment::load(CODE.into(), &first.concat()),
        Segment::entry(CODE),
    ]))
}

/// A machine and its vCPU threads, in the order in which they are dropped.
struct Bench {
    threads: VcpuThreads,
    _vm: Vm,
    memory: GuestMemoryMmap,
}

impl Bench {
    /// A machine that does not run yet; `None` if this host has no KVM.
    fn new(vcpus: u32) -> Option<Self> {
        if tests::open_kvm().is_err() {
            tests::skip("pausing real vCPUs: no /dev/kvm");
            return None;
        }
        let Machine {
            vcpus,
            vm,
            devices,
            memory,
        } = machine::build(&guest(), vcpus);
        let on_message: Arc<OnMessage> = Arc::new(|_, _| Reaction::GoOn);
        Some(Self {
            threads: VcpuThreads::new(vcpus, &devices, &memory, &on_message, None).unwrap(),
            _vm: vm,
            memory,
        })
    }

    /// What the first vCPU has counted, and what the others have.
    fn counts(&self) -> [u32; 2] {
        [0, 4].map(|offset| self.memory.read_obj(GuestAddress(COUNTS + offset)).unwrap())
    }

    /// Waits until one of the counts moves.
    #[track_caller]
    fn assert_moves(&self, which: usize) {
        let (before, deadline) = (self.counts()[which], Instant::now() + SOON);
        while self.counts()[which] == before {
            assert!(Instant::now() < deadline, "stands still");
            thread::yield_now();
        }
    }

    #[track_caller]
    fn assert_stands_still(&self, which: usize) {
        let before = self.counts()[which];
        thread::sleep(Duration::from_millis(20));
        assert_eq!(self.counts()[which], before, "moves");
    }
}

#[test]
fn one_vcpu_stands_still_and_the_others_do_not() {
    let Some(bench) = Bench::new(2) else { return };
    let threads = &bench.threads;
    threads.run();
    bench.assert_moves(1);
    assert_eq!(threads.pause(1), Ok(PAUSED));
    bench.assert_stands_still(1);
    bench.assert_moves(0);
    // A second pause on top of the first.
    assert_eq!(threads.pause(1), Ok(PAUSED));
    assert_eq!(threads.resume(1), Ok(()));
    bench.assert_stands_still(1);
    assert_eq!(threads.resume(1), Ok(()));
    bench.assert_moves(1);
    assert_eq!(threads.resume(1), Err(PauseError::NotPaused(1)));
    assert_eq!(
        threads.pause(2).unwrap_err().to_string(),
        "there is no vCPU 2; this machine has vCPUs 0 to 1"
    );
}

#[test]
fn all_stand_still_at_once() {
    let Some(bench) = Bench::new(4) else { return };
    let threads = &bench.threads;
    threads.run();
    bench.assert_moves(1);
    for _ in 0..20 {
        // A vCPU that is not in the guest would be paused without waiting for it.
        for id in 0..threads.len() {
            let deadline = Instant::now() + SOON;
            while threads.state(id).unwrap().0 != State::Running {
                assert!(Instant::now() < deadline, "vCPU {id} does not run");
                thread::yield_now();
            }
        }
        threads.pause_all().unwrap();
        let counts = bench.counts();
        for id in 0..threads.len() {
            assert_eq!(threads.state(id).unwrap().0, PAUSED);
        }
        thread::sleep(Duration::from_millis(5));
        assert_eq!(bench.counts(), counts);
        threads.resume_all().unwrap();
        bench.assert_moves(1);
    }
    // There is nothing left to undo.
    assert_eq!(threads.resume_all(), Ok(()));
    let latency = threads.pause_latency().unwrap();
    assert_eq!(latency.count, 20 * 4);
    assert!(latency.min <= latency.median && latency.median <= latency.max);
    for absence in threads.stall_totals() {
        assert_eq!(absence.times, 20);
        assert!(
            absence.total >= Duration::from_millis(20 * 5),
            "{absence:?}"
        );
    }
}

#[test]
fn a_vcpu_paused_before_it_runs_never_enters_the_guest() {
    let Some(bench) = Bench::new(2) else { return };
    let threads = &bench.threads;
    assert_eq!(threads.pause(0), Ok(State::Created));
    threads.run();
    bench.assert_stands_still(0);
    assert_eq!(bench.counts(), [0, 0]);
    // The other waits to be started by the first, in the guest or on its way there.
    threads.pause(1).unwrap();
    assert_eq!(threads.resume(0), Ok(()));
    bench.assert_moves(0);
    bench.assert_stands_still(1);
    assert_eq!(threads.resume(1), Ok(()));
    bench.assert_moves(1);
}

#[test]
fn a_vcpu_that_has_exited_says_so() {
    let Some(bench) = Bench::new(2) else { return };
    let threads = &bench.threads;
    threads.run();
    bench.assert_moves(1);
    bench
        .memory
        .write_obj(1_u32, GuestAddress(COUNTS - 4))
        .unwrap();
    let deadline = Instant::now() + SOON;
    let ended = Event::Ended {
        vcpu: 0,
        end: End::GuestExit(0x10),
    };
    while !threads.events().take_all().contains(&ended) {
        assert!(Instant::now() < deadline, "does not end");
        thread::yield_now();
    }
    let exited = PauseError::Exited {
        id: 0,
        why: Exited::Ended,
    };
    assert_eq!(threads.pause(0), Err(exited));
    assert_eq!(threads.resume(0), Err(PauseError::NotPaused(0)));
    // The vCPUs that are left can be paused, one by one and all together.
    bench.assert_moves(1);
    threads.pause_all().unwrap();
    bench.assert_stands_still(1);
    assert_eq!(threads.resume_all(), Ok(()));
    bench.assert_moves(1);
}

#[test]
fn no_kick_is_lost() {
    let Some(bench) = Bench::new(3) else { return };
    let threads = &bench.threads;
    threads.run();
    bench.assert_moves(1);
    // Two threads that do not wait for each other.
    thread::scope(|scope| {
        for stride in [1, 2] {
            scope.spawn(move || {
                for round in 0..500 {
                    let id = round * stride % 3;
                    assert_eq!(threads.pause(id), Ok(PAUSED), "round {round}");
                    assert_eq!(threads.state(id).unwrap().0, PAUSED);
                    assert_eq!(threads.resume(id), Ok(()));
                }
            });
        }
    });
    bench.assert_moves(0);
    bench.assert_moves(1);
}
