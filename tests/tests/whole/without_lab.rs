//! Guests that know of no lab, as a kernel does: what they are given, how they end, what is reported of
//! them, and how a script drives them. Each is a few instructions, so that both hosts run it; Linux itself
//! is in `linux_guest`.

use std::fs;

use iced_x86::code_asm::{al, byte_ptr, dword_ptr, dx, eax, ebx, ecx, edx, esi, esp};
use shared::ports;
use tempfile::NamedTempFile;
use tests::image::{CODE, Code, Image};
use tests::{Vmm, need_kvm};

/// ACPI's sleep control register, and what turns the machine off.
const POWER_OFF: (u16, u32) = (0x600, 5 << 2 | 1 << 5);
/// The no-op of five bytes with which functions begin that can be traced.
const ENTRY: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];

fn out_byte(code: &mut Code, (port, value): (u16, u32)) {
    code.emit(|asm| {
        asm.mov(edx, u32::from(port))?;
        asm.mov(eax, value)?;
        asm.out(dx, al)
    });
}

fn power_off(code: &mut Code) {
    out_byte(code, POWER_OFF);
    code.halt();
}

/// A guest that says `text` and turns the machine off.
fn saying(text: &str) -> Image {
    Code::without_lab(|code| {
        code.say(text);
        power_off(code);
    })
}

fn boot(image: &Image) -> Vmm {
    need_kvm();
    Vmm::new().arg(image.path())
}

#[test]
fn nothing_is_said_of_what_it_does_not_count() {
    let image = saying("hello\n");
    let run = boot(&image).run();
    run.ends_with(0).says("hello");
    run.says("pass: CPU 0 turned the machine off; its kernel complained of nothing on its console");
    for word in ["IPIs", "calls", "exits/IPI"] {
        assert!(!run.to_string().contains(word), "{run}");
    }
    let report = boot(&image).args(["--stats", "json"]).run();
    let report = report.ends_with(0).json();
    for field in ["calls", "ipi", "cpus_online"] {
        assert!(report[field].is_null(), "{field}: {report}");
    }
    assert!(report["per_vcpu"][0]["ipi_sent"].is_null(), "{report}");
    // Only a guest with a lab is told where it is, and `lab=` is the others' own affair.
    boot(&image).args(["--append", "lab=1"]).run().ends_with(0);
}

#[test]
fn every_way_to_end_is_told_from_the_others() {
    let resets = [(0x602, 1), (0x64, 0xfe)];
    for write in resets {
        let image = Code::without_lab(|code| {
            out_byte(code, write);
            code.halt();
        });
        boot(&image)
            .run()
            .ends_with(0)
            .says("CPU 0 reset the machine");
        let off = boot(&image).args(["--expect-exit", "power-off"]).run();
        off.ends_with(1)
            .says("and not by power-off, as was expected");
        boot(&image)
            .args(["--expect-exit", "reset"])
            .run()
            .ends_with(0);
    }
    let image = Code::without_lab(|code| {
        code.out(ports::EXIT, 7);
        code.halt();
    });
    let hint = "say so: --expect-exit 0x7";
    boot(&image).run().ends_with(1).says(hint);
    boot(&image).args(["--expect-exit", "7"]).run().ends_with(0);
    boot(&image)
        .args(["--expect-exit", "0x8"])
        .run()
        .ends_with(1);
    boot(&image)
        .args(["--expect-exit", "off"])
        .run()
        .ends_with(2);
    let image = Code::without_lab(Code::triple_fault);
    boot(&image).run().ends_with(4).says("died");
}

#[test]
fn what_its_kernel_says_of_itself_is_the_verdict() {
    let stall = "rcu: INFO: rcu_preempt self-detected stall on CPU\nrcu: \t1-....: (21000 ticks)\n";
    let run = boot(&saying(stall)).run();
    run.ends_with(1)
        .says("said by the guest's kernel, 1 rcu-stall: 1");
    run.says("rcu-stall, CPU 1: ");
    let report = boot(&saying(stall)).args(["--stats", "json"]).run();
    let report = report.ends_with(1).json();
    assert_eq!(report["complaints"][0]["kind"], "rcu-stall");
    assert_eq!(report["complaints"][0]["cpu"], 1);

    // Test results and metrics have what a kernel can complain of for oracles, and no others.
    let junit = boot(&saying(stall)).args(["--stats", "junit"]).run();
    junit
        .ends_with(1)
        .says("oracle.rcu-stall")
        .says("oracle.panic");
    assert!(!junit.to_string().contains("oracle.lost"), "{junit}");
    let metrics = boot(&saying(stall)).args(["--stats", "prometheus"]).run();
    metrics
        .ends_with(1)
        .says("complaints_total{kind=\"rcu-stall\"");
    for word in ["calls", "findings", "breaches", "ipi_"] {
        let metric = format!("ipi_lab_{word}");
        assert!(!metrics.stdout.contains(&metric), "{word}: {metrics}");
    }

    let warning = "WARNING: CPU: 0 PID: 1 at kernel/smp.c:912 f+0x1/0x2\n";
    boot(&saying(warning))
        .run()
        .ends_with(0)
        .says("its kernel complained, which is no failure: 1 warning");
    let expected = "must_break(\"warning\");";
    boot(&saying(warning)).script(expected).run().ends_with(0);
    boot(&saying("all is well\n"))
        .script(expected)
        .run()
        .ends_with(1);

    // What is on the same line before it is not the kernel's.
    let hung = "/ # [   12.345678] INFO: task a:1 blocked for more than 120 seconds.\n";
    boot(&saying(hung))
        .run()
        .ends_with(1)
        .says("1 hung-task: 1");
    let excused = boot(&saying(hung))
        .script("may_break(\"hung-task\");")
        .run();
    excused.ends_with(0).says("pass: as expected: hung-task");
    let nothing = boot(&saying("all is well\n"))
        .script("may_break(\"oops\");")
        .run();
    nothing
        .ends_with(0)
        .says("its kernel complained of nothing on its console");
    let case = boot(&saying(hung))
        .args(["--record-case", "/dev/null"])
        .run();
    case.ends_with(1)
        .says("no call of it is known, and no case can be recorded");

    // It hangs after that, as Linux does unless it is told to restart.
    let panicked = Code::without_lab(|code| {
        code.say(
            "[    0.500000] Kernel panic - not syncing: no init\nCPU: 0 PID: 1 Comm: swapper\n",
        );
        code.say("---[ end Kernel panic - not syncing: no init ]---\n");
        code.halt();
    });
    let run = boot(&panicked).run();
    run.ends_with(4)
        .says("the guest's kernel panicked on CPU 0: Kernel panic - not syncing: no init");
    boot(&panicked)
        .script("must_break(\"panic\");")
        .run()
        .ends_with(0);
    // A guest with a lab says what it likes.
    let own = Code::image(|code| {
        code.say("Kernel panic - not syncing: no\n---[ end Kernel panic - not syncing: no ]---\n");
        code.exit(shared::exit::ExitCode::Pass);
    });
    boot(&own).run().ends_with(0);
}

#[test]
fn an_initrd_is_in_its_memory() {
    // The second module's fields are zero if there is none; the first is the initrd.
    let image = Code::without_lab(|code| {
        code.emit(|asm| {
            asm.mov(esi, dword_ptr(ebx + 16))?; // modlist_paddr
            asm.mov(ecx, dword_ptr(esi + 8))?; // its size
            asm.mov(esi, dword_ptr(esi))?; // its address
            asm.mov(edx, u32::from(ports::CONSOLE))?;
            asm.rep().outsb()
        });
        power_off(code);
    });
    let initrd = NamedTempFile::new().expect("a temporary file");
    fs::write(initrd.path(), "what is in the initrd\n").expect("room for it");
    let with = |path: &str| boot(&image).args(["--initrd", path]).run();
    let path = initrd.path().to_str().expect("a name in UTF-8");
    with(path).ends_with(0).says("what is in the initrd");
    with("no-such-initrd")
        .ends_with(2)
        .says("cannot read the initrd");
    fs::write(initrd.path(), "").expect("room for it");
    with(path).ends_with(2).says("the initrd is empty");
    let small = boot(&image)
        .args(["--memory", "2", "--initrd"])
        .arg(tests::guest());
    small
        .run()
        .ends_with(2)
        .says("and its initrd; ask for --memory");
}

/// Waits for a byte that is typed, and leaves it in AL.
fn read_byte(code: &mut Code) {
    let mut again = code.label();
    code.emit(|asm| {
        asm.mov(edx, u32::from(ports::CONSOLE + 5))?;
        asm.set_label(&mut again)?;
        asm.in_(al, dx)?;
        asm.test(al, 1)?;
        asm.jz(again)?;
        asm.mov(edx, u32::from(ports::CONSOLE))?;
        asm.in_(al, dx)
    });
}

#[test]
fn a_script_reads_and_types_on_the_console() {
    // Repeats what is typed, up to a full stop.
    let image = Code::without_lab(|code| {
        code.say("what is it? ");
        let [mut next, mut over] = [(); 2].map(|()| code.label());
        code.emit(|asm| asm.set_label(&mut next));
        read_byte(code);
        code.emit(|asm| {
            asm.cmp(al, i32::from(b'.'))?;
            asm.je(over)?;
            asm.out(dx, al)?;
            asm.jmp(next)?;
            asm.set_label(&mut over)
        });
        power_off(code);
    });
    // What one wait has found is behind the next.
    let talk = r#"
        wait_console("what is it\\? $");
        type_console("this and that\n");
        expect_eq(wait_console("th.."), "this");
        expect_eq(wait_console("th.*\n"), "that");
    "#;
    let drive = |more: &str| boot(&image).script(&(talk.to_owned() + more)).run();
    drive("type_console(\".\");")
        .ends_with(0)
        .says("this and that");
    drive("wait_console(\"(\");")
        .ends_with(2)
        .says("no regular expression");
    drive("wait_console(\"never\", 0.2);")
        .ends_with(5)
        .says("\"never\" on the guest's console has not happened within 0.2 s");
    let much = "for time in 0..100 { type_console(\"x\".repeat(10000)); }";
    let much = much.replace("\"x\".repeat(10000)", "text");
    let much = "let text = \"x\"; text.pad(10000, \"x\"); ".to_owned() + &much;
    drive(&(much + "pause_all();")).says("too much unread");
}

#[test]
fn the_workload_starts_with_a_line_on_the_console() {
    let image = Code::without_lab(|code| {
        code.say("one\ntwo\nthree\n");
        power_off(code);
    });
    let window = |pattern| {
        let run = boot(&image)
            .args(["--stats", "json", "--start-at", pattern])
            .run();
        run.ends_with(0).json()["window"].clone()
    };
    assert_eq!(window("^tw"), "unfinished workload");
    assert_eq!(window("four"), "whole run");
    let run = boot(&image).args(["--start-at", "("]).run();
    run.ends_with(2).says("--start-at");
}

#[test]
fn a_cpu_is_held_at_the_entry_of_a_function() {
    // The function is at a place that the script knows. It is passed four times, once something was
    // typed.
    const PLACE: u32 = 16;
    let image = Code::without_lab(|code| {
        let [mut function, mut begin, mut again] = [(); 3].map(|()| code.label());
        code.emit(|asm| {
            asm.jmp(begin)?; // two bytes
            asm.nops_with_size(PLACE as usize - 2)?;
            asm.set_label(&mut function)?;
            asm.db(&ENTRY)?;
            asm.ret()?;
            asm.set_label(&mut begin)?;
            asm.mov(esp, 0x8000)
        });
        code.say("ready\n");
        read_byte(code);
        code.emit(|asm| {
            asm.mov(ecx, 4)?;
            asm.set_label(&mut again)?;
            asm.call(function)
        });
        code.say("passed\n");
        code.emit(|asm| {
            asm.dec(ecx)?;
            asm.jnz(again)
        });
        // Whether it is as it was.
        let mut is_armed = code.label();
        code.emit(|asm| {
            asm.mov(al, byte_ptr(CODE + PLACE))?;
            asm.cmp(al, i32::from(ENTRY[0]))?;
            asm.jne(is_armed)
        });
        code.say("put back\n");
        code.emit(|asm| asm.set_label(&mut is_armed));
        power_off(code);
    });
    let place = format!("{:#x}", CODE + PLACE);
    let drive = |text: &str| {
        let text = format!(
            "wait_console(\"ready\");\n{}",
            text.replace("PLACE", &place)
        );
        boot(&image).script(&text).run()
    };
    let held = "cpu(0).hold_at(\"PLACE\", 3); type_console(\".\"); cpu(0).wait_held();
                wait_console(\"passed\\npassed\\n\");
                try { wait_console(\"passed\", 0.1); throw \"it went on\"; } catch (why) {
                    if why == \"it went on\" { throw why; }
                }";
    let goes_on = "cpu(0).resume(); wait_console(\"passed\\npassed\\n\");";
    drive(&format!("{held} {goes_on}"))
        .ends_with(0)
        .says("put back");
    let all_go_on = "pause_all(); resume_all(); resume_all();";
    drive(&format!("{held} {all_go_on}"))
        .ends_with(0)
        .says("put back");
    // Twice in a row, and never.
    let again = "cpu(0).hold_at(\"PLACE\"); cpu(0).resume(); cpu(0).wait_held();
                 wait_console(\"passed\"); cpu(0).resume();";
    drive(&format!("{held} {again}")).ends_with(0);
    drive("cpu(0).hold_at(\"PLACE\", 2); cpu(0).disarm(); type_console(\".\");").ends_with(0);
    for (place, why) in [
        ("no_such_function", "no function \\\"no_such_function\\\""),
        ("0x100000", "does not begin with the five-byte no-op"),
        ("0xffff0000", "lies in no segment of the guest image"),
    ] {
        let refused = drive(&format!("cpu(0).hold_at(\"{place}\");"));
        refused.ends_with(2).says(&why.replace('\\', ""));
    }
}
