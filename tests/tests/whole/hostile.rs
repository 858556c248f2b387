//! Guests that die, hang or lie. The VMM must survive each of them, end in time, and say what it was.

use std::time::Duration;

use shared::exit::ExitCode;
use shared::lab::{ALIGN, Header, Layout, MAGIC};
use shared::ports;
use tests::image::{Code, Image};
use tests::{Run, Vmm, need_kvm};

const MIB: u32 = 1 << 20;

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
        // Finished before it has begun, and begun twice.
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
            // The exit port, whichever of its bytes a wide access touches.
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
    // A port of the chipset may well end the machine; only the VMM must not be harmed.
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
            run(&image, &arguments).ends_with(1).says("fail");
            let run = run(&image, &format!("{arguments} --stats json"));
            run.ends_with(1);
            assert_eq!(run.json()["result"], "fail");
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
            .says("fail");
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
    // As if it had never used it, which is no lie about any call.
    assert!([0, 1].contains(&run.status()), "{run}");
}

#[test]
fn a_guest_that_never_starts_the_other_cpus() {
    need_kvm();
    let image = Code::image(|code| {
        let online = std::mem::offset_of!(Header, cpus_online) as u32;
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
    // The report begins in a line of its own.
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
