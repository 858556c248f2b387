//! Guests that die, hang or lie. The VMM must survive each of them, end in time, and report what
//! happened.

use std::mem::offset_of;
use std::time::Duration;

use shared::exit::ExitCode;
use shared::lab::{ALIGN, Counters, Finding, Header, Layout, MAGIC, SLOTS, Section, Tally};
use shared::ledger::{CallId, Lane, RecordHead};
use shared::ports;
use tests::image::{Code, Image};
use tests::{Run, Vmm, need_kvm};

const MIB: u32 = 1 << 20;

/// The number of an oracle, which these images do not declare.
const LOST: u32 = 1;

fn run(image: &Image, arguments: &str) -> Run {
    Vmm::with(arguments).arg(image.path()).run()
}

/// Where the lab of a machine of `mib` MiB begins.
fn lab(mib: u32, vcpus: u32) -> u32 {
    let layout = Layout::new(vcpus).expect("a machine");
    let size = u32::try_from(layout.size).expect("a small lab");
    mib * MIB - size.next_multiple_of(ALIGN as u32)
}

#[test]
fn a_triple_fault() {
    need_kvm();
    let image = Code::image(Code::triple_fault);
    for vcpus in [1, 4] {
        run(&image, &format!("--vcpus {vcpus}"))
            .ends_with(4)
            .says("CPU 0");
    }
}

#[test]
fn a_jump_to_where_there_is_no_memory() {
    need_kvm();
    let image = Code::image(|code| {
        use iced_x86::code_asm::eax;
        code.emit(|asm| {
            asm.mov(eax, 0xd000_0000_u32)?;
            asm.jmp(eax)
        });
    });
    run(&image, "--watchdog 5").ends_with(4).says("0xd0000000");
}

#[test]
fn an_init_to_itself() {
    need_kvm();
    let image = Code::image(|code| {
        // Physical destination 0, INIT.
        code.store(0xfee0_0310, 0);
        code.store(0xfee0_0300, 0x4500);
        code.halt();
    });
    let run = run(&image, "--vcpus 2 --watchdog 2");
    assert!([4, 5].contains(&run.status()), "{run}");
}

#[test]
fn loops_and_sleeps_without_end() {
    need_kvm();
    for (image, how) in [
        (Code::image(Code::spin), "running"),
        (Code::image(Code::halt), "halted"),
    ] {
        for vcpus in [1, 4] {
            let run = run(&image, &format!("--vcpus {vcpus} --watchdog 1"));
            run.ends_with(5).says("--watchdog").says(how);
            if vcpus > 1 {
                run.says("never started");
            }
        }
        run(&image, "--timeout 0.5 --watchdog 0")
            .ends_with(5)
            .says("--timeout");
    }
}

#[test]
fn every_word_on_the_exit_port() {
    need_kvm();
    for (code, status) in [
        (ExitCode::Pass as u32, 0),
        (ExitCode::Fail as u32, 1),
        (ExitCode::Panic as u32, 4),
        (ExitCode::BadOptions as u32, 2),
        (ExitCode::BadMachine as u32, 4),
        (0, 4),
        (1, 4),
        (0x15, 4),
        (u32::MAX, 4),
        (0x1000_0010, 4),
    ] {
        let image = Code::image(|asm| {
            asm.out(ports::EXIT, code);
            asm.halt();
        });
        run(&image, "--watchdog 5").ends_with(status);
    }
}

#[test]
fn garbage_on_the_doorbell() {
    need_kvm();
    let image = Code::image(|code| {
        use iced_x86::code_asm::{al, ax, dx};
        for value in [0, 0xff, 0xdead_beef, u32::MAX] {
            code.out(ports::DOORBELL, value);
        }
        code.emit(|asm| {
            asm.out(dx, al)?;
            asm.out(dx, ax)
        });
        // The workload finishes before it starts, and starts twice.
        for value in [2, 1, 1, 2, 2, 1] {
            code.out(ports::DOORBELL, value);
        }
        code.exit(ExitCode::Pass);
    });
    let run = run(&image, "--stats json");
    run.ends_with(0);
    assert_eq!(run.json()["strays"]["doorbell"], 6, "{run}");
}

#[test]
fn every_port_written_and_read() {
    need_kvm();
    let image = Code::image(|code| {
        use iced_x86::code_asm::{dx, eax, edx};
        let (mut next, mut skip) = (code.label(), code.label());
        code.emit(|asm| {
            asm.mov(edx, 0xffff_u32)?;
            asm.set_label(&mut next)?;
            // The exit port, whichever of its bytes a wide access covers.
            asm.cmp(edx, u32::from(ports::EXIT))?;
            asm.je(skip)?;
            asm.in_(eax, dx)?;
            asm.mov(eax, 0xa5a5_a5a5_u32)?;
            asm.out(dx, eax)?;
            asm.set_label(&mut skip)?;
            asm.dec(edx)?;
            asm.jns(next)
        });
        code.exit(ExitCode::Pass);
    });
    // A port of the chipset may end the machine. Only the VMM must not be harmed.
    let run = run(&image, "--watchdog 10");
    assert!([0, 4].contains(&run.status()), "{run}");
}

#[test]
fn garbage_all_over_the_device_gap() {
    need_kvm();
    let image = Code::image(|code| {
        use iced_x86::code_asm::{dword_ptr, eax, edi};
        for (start, step) in [
            (0xc000_0000_u32, 0x10_0000_u32), // nothing
            (0xfec0_0000, 0x10),              // IOAPIC
        ] {
            let mut next = code.label();
            code.emit(|asm| {
                asm.mov(edi, start)?;
                asm.set_label(&mut next)?;
                asm.mov(eax, dword_ptr(edi))?;
                asm.mov(dword_ptr(edi), 0xa5a5_a5a5_u32)?;
                asm.add(edi, step)?;
                asm.cmp(edi, start + 256 * step)?;
                asm.jb(next)
            });
        }
        code.exit(ExitCode::Pass);
    });
    run(&image, "--vcpus 2 --watchdog 10").ends_with(0);
}

#[test]
fn garbage_in_place_of_the_lab() {
    need_kvm();
    for vcpus in [1, 4] {
        for word in [u32::MAX, 0xa5a5_a5a5, 1, 0x8000_0000] {
            let image = Code::image(|code| {
                code.out(ports::DOORBELL, 1);
                code.fill(lab(32, vcpus), (32 * MIB - lab(32, vcpus)) / 4, word);
                code.out(ports::DOORBELL, 2);
                code.exit(ExitCode::Pass);
            });
            let arguments = format!("--memory 32 --vcpus {vcpus}");
            run(&image, &arguments).ends_with(1).says("not-believed: ");
            let run = run(&image, &format!("{arguments} --stats json"));
            run.ends_with(1);
            assert_eq!(run.json()["result"], "not-believed");
        }
    }
}

#[test]
fn garbage_behind_a_header_that_looks_good() {
    need_kvm();
    let header = u32::try_from(size_of::<Header>()).expect("128");
    for word in [u32::MAX, 0x8000_0001, 0x0001_0001] {
        let image = Code::image(|code| {
            let lab = lab(32, 4);
            code.fill(lab + header, (32 * MIB - lab - header) / 4, word);
            code.store(lab, MAGIC as u32);
            code.exit(ExitCode::Pass);
        });
        run(&image, "--memory 32 --vcpus 4")
            .ends_with(1)
            .says("not-believed: ");
    }
}

#[test]
fn a_guest_that_erases_the_lab() {
    need_kvm();
    let image = Code::image(|code| {
        code.fill(lab(32, 4), (32 * MIB - lab(32, 4)) / 4, 0);
        code.exit(ExitCode::Pass);
    });
    let run = run(&image, "--memory 32 --vcpus 4 --stats json");
    // What the guest erased cannot be shown.
    assert_eq!(run.ends_with(1).json()["result"], "not-believed", "{run}");
    run.says("its header was overwritten");
}

/// What a guest writes into the lab of a machine of two CPUs before it exits with success.
struct Forgery<'a>(&'a mut Code);

impl Forgery<'_> {
    const VCPUS: u32 = 2;

    fn image(forge: impl FnOnce(&mut Forgery<'_>)) -> Image {
        Code::image(|code| {
            let mut forgery = Forgery(code);
            forgery.header(offset_of!(Header, cpus_online), Self::VCPUS);
            forge(&mut forgery);
            code.exit(ExitCode::Pass);
        })
    }

    fn layout() -> Layout {
        Layout::new(Self::VCPUS).expect("a machine")
    }

    fn header(&mut self, field: usize, value: u32) {
        self.0.store(lab(32, Self::VCPUS) + field as u32, value);
    }

    fn write(&mut self, section: Section, index: u32, field: usize, value: u64) {
        let entry = section.entry(index.into()).expect("an entry") as u32;
        let at = lab(32, Self::VCPUS) + entry + field as u32;
        self.0.store(at, value as u32);
        self.0.store(at + 4, (value >> 32) as u32);
    }

    /// The call with this sequence number of CPU 0, made to and run on these CPUs.
    fn call(&mut self, sequence: u64, targets: u64, ran: u64) {
        let id = CallId::new(0, 0, Lane::Task, sequence);
        let masks = size_of::<RecordHead>();
        for (field, value) in [(0, id.raw()), (masks, targets), (masks + 8, ran)] {
            let ledger = Self::layout().ledger;
            self.write(ledger, id.record_index(SLOTS), field, value);
        }
    }

    fn tally(&mut self, cpu: u32, [made, expected, executed]: [u64; 3]) {
        for (field, value) in [
            (offset_of!(Tally, calls_made), made),
            (offset_of!(Tally, calls_expected), expected),
            (offset_of!(Tally, calls_executed), executed),
        ] {
            self.write(Self::layout().tallies, cpu, field, value);
        }
    }
}

fn run_forged(image: &Image, arguments: &str) -> Run {
    run(image, &format!("--memory 32 --vcpus 2 {arguments}"))
}

/// Forgeries, each with the expected message.
fn forgeries() -> Vec<(Image, &'static str)> {
    let layout = Forgery::layout();
    vec![
        (
            Forgery::image(|it| it.tally(0, [1_000_000; 3])),
            "CPU 0 counts 1000000 calls made, and 0 by its ledger",
        ),
        (
            // One call, and another number of expected executions.
            Forgery::image(|it| {
                it.call(1, 0b10, 0b10);
                it.tally(0, [1, 2, 0]);
                it.tally(1, [0, 0, 2]);
            }),
            "CPU 0 counts 2 executions that its calls owe, and by its ledger they owe 1",
        ),
        (
            // A call that claims to be the ten thousandth.
            Forgery::image(|it| {
                it.call(10_000, 0b10, 0b10);
                it.tally(0, [10_000, 10_000, 0]);
                it.tally(1, [0, 0, 10_000]);
            }),
            "the ledger holds call 0:0:10000 and not call 0:0:9937",
        ),
        (
            Forgery::image(|it| it.header(offset_of!(Header, cpus_online), u32::MAX)),
            "4294967295 CPUs came up, of 2",
        ),
        (
            Forgery::image(|it| {
                it.call(1, 0x7f << 57, 0);
                it.tally(0, [1, 7, 7]);
            }),
            "call 0:0:1 was made to CPUs 57-63, and the machine has 2 CPUs",
        ),
        (
            Forgery::image(|it| it.header(offset_of!(Header, findings_made), 65)),
            "a finding is of oracle 0, which there is not",
        ),
        (
            Forgery::image(|it| {
                it.write(layout.found, LOST, 0, 3);
            }),
            "0 findings were made, and by oracle there are 3",
        ),
        (
            Forgery::image(|it| {
                it.header(offset_of!(Header, findings_made), 1);
                it.write(layout.found, LOST, 0, 1);
                // The oracle, and the CPU.
                let field = offset_of!(Finding, oracle);
                it.write(layout.findings, 0, field, 9 << 32 | u64::from(LOST));
            }),
            "a finding was made on CPU 9, and the machine has 2 CPUs",
        ),
        (
            Forgery::image(|it| {
                let field = offset_of!(Counters, words);
                it.write(layout.counters, 1, field, u64::MAX);
            }),
            "a counter of CPU 1 stands at 18446744073709551615",
        ),
    ]
}

#[test]
fn a_forged_pass() {
    need_kvm();
    for (image, said) in forgeries() {
        run_forged(&image, "")
            .ends_with(1)
            .says("not-believed: ")
            .says(said);
    }
}

#[test]
fn a_forged_pass_is_none_in_any_report() {
    need_kvm();
    let (image, said) = forgeries().swap_remove(0);
    let run = run_forged(&image, "--stats json");
    let document = run.ends_with(1).json();
    assert_eq!(document["result"], "not-believed", "{run}");
    assert_eq!(document["calls"]["judged"], 0, "{run}");
    assert_eq!(document["contradictions"][0], said, "{run}");
    assert_eq!(document["contradictions_made"], 1, "{run}");
    run_forged(&image, "--stats prometheus")
        .ends_with(1)
        .says("result=\"not-believed\"")
        .says("ipi_lab_contradictions 1\n")
        .says("ipi_lab_calls_judged_total 0\n");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let page = directory.path().join("page.html");
    let arguments = format!("--report {}", page.display());
    run_forged(&image, &arguments).ends_with(1);
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("data-result=\"not-believed\"") && page.contains(said));
}

#[test]
fn of_many_calls_it_is_said_which_the_vmm_has_judged() {
    need_kvm();
    // Nothing contradicts it, and the report does not claim that more than the last calls were
    // checked.
    let image = Forgery::image(|it| {
        let slots = u64::from(SLOTS);
        for sequence in 10_001 - slots..=10_000 {
            it.call(sequence, 0b10, 0b10);
        }
        it.tally(0, [10_000, 10_000, 0]);
        it.tally(1, [0, 0, 10_000]);
    });
    let run = run_forged(&image, "");
    run.ends_with(0).says(
        "pass: 10000 calls, each exactly once where it had to: \
             the last 64 by the VMM's own judgement",
    );
    let run = run_forged(&image, "--stats json");
    assert_eq!(run.ends_with(0).json()["calls"]["judged"], 64, "{run}");
}

#[test]
fn a_guest_that_never_starts_the_other_cpus() {
    need_kvm();
    let image = Code::image(|code| {
        let online = offset_of!(Header, cpus_online) as u32;
        code.store(lab(32, 4) + online, 1);
        code.exit(ExitCode::Pass);
    });
    run(&image, "--memory 32 --vcpus 4")
        .ends_with(1)
        .says("1 of 4 CPUs");
}

#[test]
fn a_flood_on_the_console_arrives_whole() {
    need_kvm();
    let image = Code::image(|code| {
        use iced_x86::code_asm::{ecx, edx, esi};
        code.fill(2 * MIB, 16 * 1024, 0x5858_5858);
        code.emit(|asm| {
            asm.mov(esi, 2 * MIB)?;
            asm.mov(ecx, 0xffff_u32)?;
            asm.mov(edx, u32::from(ports::CONSOLE))?;
            asm.rep().outsb()
        });
        code.exit(ExitCode::Pass);
    });
    let run = run(&image, "");
    run.ends_with(0);
    // The report begins on a new line.
    let said = run.stdout.lines().next().unwrap_or_default();
    let letters = said.bytes().filter(|byte| *byte == b'X').count();
    assert_eq!(letters, 0xffff, "{run}");
}

#[test]
fn a_flood_without_end_ends_with_the_time_limit() {
    need_kvm();
    let image = Code::image(|code| {
        code.for_ever(|code| code.say("flood "));
    });
    let run = Vmm::with("--timeout 2")
        .arg(image.path())
        .limit(Duration::from_secs(30))
        .run();
    run.ends_with(5).says("--timeout");
}
