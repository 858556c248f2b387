//! Guests that lie to the explorer, or keep it waiting for ever: in the boot, on the way to their
//! first command, in a step, at the end. A search and a replay of each end when their time is up or
//! a signal comes, and say so.

use std::fs;
use std::mem::offset_of;
use std::time::Duration;

use serde_json::json;
use shared::lab::{Contexts, Layout, MAGIC};
use shared::mailbox::WAKE_VECTOR;
use shared::ports::{self, Doorbell};
use tempfile::TempDir;
use tests::image::{Code, Image};
use tests::{Run, Vmm, need_kvm};

/// Far more than a time limit of a second needs. The explorer's own limits end a run with another
/// status.
const SOON: Duration = Duration::from_secs(30);

/// Where a guest gets stuck.
#[derive(Clone, Copy, Debug)]
enum Where {
    Boot,
    /// After the boot, while pending interrupts are taken.
    Ready,
    /// When it carries out a command.
    Step,
    /// When it is told to finish.
    End,
}

/// How it gets stuck.
#[derive(Clone, Copy, Debug)]
enum How {
    Spins,
    /// Rings the doorbell with a value that means nothing.
    Rings,
    /// Writes to a port without a device.
    Writes,
    /// Reports again and again that it waits for a command, with a pending interrupt that it never
    /// takes.
    Idles,
    /// Repeats the instruction that reports so, as often as a register can count.
    Repeats,
}

fn guest(place: Where, how: How) -> Image {
    Code::explorable(|code| {
        code.apic_on();
        if matches!(place, Where::Ready) {
            code.interrupt_itself(WAKE_VECTOR);
        }
        if !matches!(place, Where::Boot) && !matches!(how, How::Repeats) {
            code.idle();
        }
        match how {
            How::Spins => code.spin(),
            How::Rings => code.for_ever(|code| code.out(ports::DOORBELL, Doorbell::Waiting as u32)),
            How::Writes => code.for_ever(|code| code.out(0x80, 7)),
            How::Idles => code.for_ever(Code::idle),
            How::Repeats => {
                use iced_x86::code_asm::{ecx, edx, esi};
                code.fill(0x20_0000, 0x1000, Doorbell::Reached as u32);
                code.name_idle();
                code.emit(|asm| {
                    asm.std()?;
                    asm.mov(esi, 0x20_0ffc)?;
                    asm.mov(ecx, u32::MAX)?;
                    asm.mov(edx, u32::from(ports::DOORBELL))?;
                    asm.rep().outsd()
                });
            }
        }
    })
}

/// A case, a schedule and a guest.
struct Workspace {
    directory: TempDir,
    guest: Image,
}

impl Workspace {
    fn with(guest: Image, deeds: &str) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let case = format!("cpus 1\n{deeds}\n");
        fs::write(directory.path().join("a.case"), &case).expect("room for a case");
        let turn = json!({ "cpu": 0, "takes": WAKE_VECTOR, "stops": 1, "until": "idle" });
        let turns = if deeds.is_empty() {
            json!([])
        } else {
            json!([turn])
        };
        let schedule = json!({
            "form": "ipi-lab-schedule/1", "case": case, "append": "", "granularity": "probe",
            "image": "", "begins": "", "turns": turns, "breaks": [],
        });
        let path = directory.path().join("a.json");
        fs::write(path, schedule.to_string()).expect("room for a schedule");
        Self { directory, guest }
    }

    fn explore(&self, options: &str) -> Vmm {
        Vmm::with("explore --granularity probe --strategy exhaustive")
            .arg(self.directory.path().join("a.case"))
            .arg(self.guest.path())
            .args(options.split_whitespace())
            .limit(SOON)
    }

    fn replay(&self, options: &str) -> Vmm {
        Vmm::with("replay --any-image")
            .arg(self.directory.path().join("a.json"))
            .arg(self.guest.path())
            .args(options.split_whitespace())
            .limit(SOON)
    }
}

const WAYS: [(Where, How); 12] = [
    (Where::Boot, How::Spins),
    (Where::Boot, How::Rings),
    (Where::Boot, How::Writes),
    (Where::Ready, How::Spins),
    (Where::Ready, How::Rings),
    (Where::Ready, How::Idles),
    (Where::Step, How::Spins),
    (Where::Step, How::Rings),
    (Where::Step, How::Writes),
    (Where::End, How::Spins),
    (Where::End, How::Rings),
    (Where::End, How::Writes),
];

fn workspace(place: Where, how: How) -> Workspace {
    let deeds = match place {
        Where::Step => "0: irqs-off",
        _ => "",
    };
    Workspace::with(guest(place, how), deeds)
}

#[track_caller]
fn is_out_of_time(run: &Run, context: &str) {
    assert_eq!(run.status(), 5, "{context}: {run}");
    let says_why = run.stdout.contains("--time-limit") || run.stderr.contains("--time-limit");
    assert!(says_why, "{context}: {run}");
}

#[test]
fn a_guest_that_never_goes_on_is_given_up_when_the_time_is_up() {
    need_kvm();
    for (place, how) in WAYS {
        let workspace = workspace(place, how);
        let context = format!("{place:?} {how:?}");
        is_out_of_time(&workspace.explore("--time-limit 1s").run(), &context);
        is_out_of_time(&workspace.replay("--time-limit 1000ms").run(), &context);
    }
}

#[test]
fn a_guest_that_never_goes_on_is_given_up_when_a_signal_comes() {
    need_kvm();
    for (number, (place, how)) in WAYS.into_iter().enumerate() {
        let workspace = workspace(place, how);
        let signal = [libc::SIGINT, libc::SIGTERM][number % 2];
        for vmm in [workspace.explore(""), workspace.replay("")] {
            let running = vmm.start();
            running.wait_until_it_catches(signal);
            if !matches!(place, Where::Boot) {
                // The thread exists once the boot is over.
                running.wait_for_thread("alarm");
            }
            running.signal(signal);
            let run = running.finish();
            assert_eq!(run.status(), 128 + signal, "{place:?} {how:?}: {run}");
        }
    }
}

#[test]
fn several_machines_end_with_their_time() {
    need_kvm();
    for place in [Where::Boot, Where::Step] {
        let workspace = workspace(place, How::Rings);
        let run = workspace.explore("--jobs 2 --time-limit 1s").run();
        is_out_of_time(&run, &format!("{place:?}"));
    }
}

/// The instruction that caused the exit is completed before the state is examined, and then exits
/// again.
#[test]
fn an_instruction_that_repeats_itself_is_no_trap() {
    need_kvm();
    let workspace = Workspace::with(guest(Where::End, How::Repeats), "");
    for run in [
        workspace.explore("--time-limit 2s").run(),
        workspace.replay("--time-limit 2s").run(),
    ] {
        assert!([1, 2, 5].contains(&run.status()), "{run}");
    }
}

#[test]
fn stacks_that_cannot_be_are_not_believed() {
    need_kvm();
    let at = Layout::new(1).expect("a machine").contexts.offset;
    let at = u32::try_from(at).expect("a small lab");
    let handler = u32::try_from(offset_of!(Contexts, handler)).expect("16");
    for (which, [start, end], why) in [
        (0, [0, 1_u64 << 63], "where no memory is"),
        (0, [0x10_0000, u64::MAX], "where no memory is"),
        (handler, [0, 1 << 40], "where no memory is"),
        (handler, [0x20_0000, 0x10_0000], "ends before it begins"),
    ] {
        let guest = Code::explorable(|code| {
            code.find_page(MAGIC as u32);
            for (number, half) in [start, start >> 32, end, end >> 32].into_iter().enumerate() {
                let offset = at + which + 4 * number as u32;
                code.store_behind_ebx(offset, half as u32);
            }
            code.idle();
            code.halt();
        });
        let workspace = Workspace::with(guest, "0: irqs-off");
        for run in [workspace.explore("").run(), workspace.replay("").run()] {
            run.ends_with(2).complains_of(why);
            assert!(run.stderr.contains("of CPU 0 is from"), "{run}");
        }
    }
}
