//! Guests that do one harm each, given to every command that boots one, with every output on. Whatever
//! they do, the command ends in time with one of its own statuses, and what it has written is whole.

use std::fs;
use std::path::Path;
use std::time::Duration;

use iced_x86::code_asm::{dword_ptr, eax, ebx, ecx, edi, edx, esi};
use serde_json::Value;
use shared::exit::ExitCode;
use shared::lab::{Header, Layout, MAGIC, Section};
use shared::ports::{self, Doorbell};
use tests::image::{Code, Image};
use tests::{Run, Vmm, need_kvm};

/// More than any of these runs needs: all of them end by their own limits, a bench by that of a minute
/// in which nothing moves.
const SOON: Duration = Duration::from_secs(180);

/// What a guest does, again and again.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// Fills a part of the lab with a word.
    Scribbles(&'static str, u32),
    Ports,
    Addresses,
    Msrs,
    Console,
    Doorbell,
    NeverHalts,
}

/// The parts of the lab that are judged, so that nothing can be written there at random.
const JUDGED: [&str; 5] = ["header", "counters", "ledger", "tallies", "found"];

/// The parts of the lab.
fn parts(cpus: u32) -> Vec<(&'static str, Section)> {
    let layout = Layout::new(cpus).expect("a machine");
    let header = Section {
        offset: 0,
        stride: size_of::<Header>() as u64,
        count: 1,
    };
    vec![
        ("header", header),
        ("counters", layout.counters),
        ("ledger", layout.ledger),
        ("findings", layout.findings),
        ("mailboxes", layout.mailboxes),
        ("arms", layout.arms),
        ("rings", layout.rings),
        ("contexts", layout.contexts),
        ("tallies", layout.tallies),
        ("found", layout.found),
        ("words", layout.words),
        ("programs", layout.programs),
    ]
}

fn harms() -> Vec<Harm> {
    let words = [u32::MAX, 1];
    let scribbles = parts(1).into_iter().flat_map(|(part, _)| {
        let harm = move |word| Harm::Scribbles(part, word);
        words.map(harm)
    });
    let others = [
        Harm::Ports,
        Harm::Addresses,
        Harm::Msrs,
        Harm::Console,
        Harm::Doorbell,
        Harm::NeverHalts,
    ];
    scribbles.chain(others).collect()
}

/// Does it. EBX has the address of the lab.
fn does(code: &mut Code, harm: Harm, cpus: u32) {
    match harm {
        Harm::Scribbles(part, word) => {
            let mut parts = parts(cpus).into_iter();
            let (_, section) = parts.find(|(name, _)| *name == part).expect("a part");
            let start = u32::try_from(section.offset).expect("a small lab");
            let length = u32::try_from(section.end() - section.offset).expect("a small lab");
            code.emit(|asm| {
                asm.cld()?;
                asm.lea(edi, dword_ptr(ebx + start))?;
                asm.mov(ecx, length / 4)?;
                asm.mov(eax, word)?;
                asm.rep().stosd()
            });
        }
        Harm::Ports => {
            use iced_x86::code_asm::dx;
            let (mut next, mut skip) = (code.label(), code.label());
            code.emit(|asm| {
                asm.mov(edx, 0x5ff_u32)?;
                asm.set_label(&mut next)?;
                // The wide accesses that touch the exit port would end it all.
                asm.mov(eax, edx)?;
                asm.sub(eax, u32::from(ports::EXIT) - 3)?;
                asm.cmp(eax, 7)?;
                asm.jb(skip)?;
                asm.in_(eax, dx)?;
                asm.out(dx, eax)?;
                asm.set_label(&mut skip)?;
                asm.dec(edx)?;
                asm.jns(next)
            });
        }
        Harm::Addresses => {
            for start in [0xc000_0000_u32, 0xfec0_0000, 0xfee0_0000, 0xffff_f000] {
                let mut next = code.label();
                code.emit(|asm| {
                    asm.mov(edi, start)?;
                    asm.mov(ecx, 256)?;
                    asm.set_label(&mut next)?;
                    asm.mov(eax, dword_ptr(edi))?;
                    asm.mov(dword_ptr(edi), 0xa5a5_a5a5_u32)?;
                    asm.add(edi, 4)?;
                    asm.dec(ecx)?;
                    asm.jnz(next)
                });
            }
        }
        Harm::Msrs => {
            // The TSC and its deadline; KVM's clocks, steal time, asynchronous page faults and EOI,
            // each of which names memory that KVM writes: here, the lab.
            for msr in [
                0x10_u32,
                0x6e0,
                0x4b56_4d00,
                0x4b56_4d01,
                0x4b56_4d03,
                0x4b56_4d02,
                0x4b56_4d04,
            ] {
                code.emit(|asm| {
                    asm.mov(ecx, msr)?;
                    asm.rdmsr()?;
                    asm.lea(eax, dword_ptr(ebx + 1))?;
                    asm.xor(edx, edx)?;
                    asm.wrmsr()
                });
            }
        }
        Harm::Console => {
            code.fill(0x20_0000, 0x2000, 0x3c58_1b0a);
            code.emit(|asm| {
                asm.mov(esi, 0x20_0000)?;
                asm.mov(ecx, 0x7fff_u32)?;
                asm.mov(edx, u32::from(ports::CONSOLE))?;
                asm.rep().outsb()
            });
        }
        Harm::Doorbell => {
            for value in [0, 1, 2, 3, 5, 6, 7, 0xdead_beef, u32::MAX] {
                code.out(ports::DOORBELL, value);
                code.out(ports::WIRE, value);
            }
        }
        Harm::NeverHalts => code.spin(),
    }
}

fn guest(harm: Harm, cpus: u32) -> Image {
    Code::for_every_command(|code| {
        code.apic_on();
        code.find_page(MAGIC as u32);
        code.out(ports::DOORBELL, Doorbell::WorkloadStarted as u32);
        if !matches!(harm, Harm::NeverHalts) {
            does(code, harm, cpus);
        }
        code.idle();
        does(code, harm, cpus);
        code.out(ports::DOORBELL, Doorbell::WorkloadFinished as u32);
        code.exit(ExitCode::Pass);
    })
}

/// Runs `vmm` with these arguments and the guest, and looks at what it leaves in `folder`.
#[track_caller]
fn survives(arguments: &str, image: &Image, folder: &Path, harm: Harm) -> Run {
    let arguments = arguments.replace('@', &folder.to_string_lossy());
    let run = Vmm::with(&arguments).arg(image.path()).limit(SOON).run();
    assert!(
        (0..=5).contains(&run.status()),
        "{harm:?}: {arguments}: {run}"
    );
    // Refused after the boot, because of what the guest has done: stacks that cannot be, and an end
    // before it takes commands.
    let of_harm = ["of CPU 0 is from", "before its CPUs were ready"];
    let is_refused = run.status() == 2 && !of_harm.iter().any(|it| run.stderr.contains(it));
    assert!(!is_refused, "{harm:?} was never done: {arguments}: {run}");
    assert!(
        !run.stderr.contains("panicked"),
        "{harm:?}: {arguments}: {run}"
    );
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let text = fs::read(&path).expect("a file");
        let whole = match path.extension().and_then(|it| it.to_str()) {
            Some("json") => serde_json::from_slice::<Value>(&text).is_ok(),
            Some("html") => text.trim_ascii_end().ends_with(b"</html>"),
            _ => true,
        };
        let text = String::from_utf8_lossy(&text);
        assert!(
            whole,
            "{harm:?}: {arguments}: not whole: {}: {text}\n{run}",
            path.display()
        );
    }
    run
}

/// Every harm to a machine of so many CPUs, in a folder of its own, with a case and a schedule there.
fn each(cpus: u32, does: impl Fn(Harm, &Image, &Path)) {
    need_kvm();
    for harm in harms() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let case = "cpus 1\n0: irqs-off\n";
        fs::write(folder.path().join("a.case"), case).expect("room for a case");
        let schedule = serde_json::json!({
            "form": "ipi-lab-schedule/1", "case": case, "append": "", "granularity": "probe",
            "image": "", "begins": "", "turns": [
                { "cpu": 0, "takes": shared::mailbox::WAKE_VECTOR, "stops": 1, "until": "idle" },
            ], "breaks": [],
        });
        let path = folder.path().join("given.json");
        fs::write(path, schedule.to_string()).expect("room for a schedule");
        does(harm, &guest(harm, cpus), folder.path());
    }
}

#[test]
fn runs_with_every_output() {
    each(2, |harm, image, folder| {
        // On a host that has much to do, every other guest has its time too.
        let limit = match harm {
            Harm::NeverHalts => "--timeout 1",
            _ => "--timeout 60",
        };
        let outputs = "--stats json --stats-file @/stats.json --trace @/trace.json --report @/page.html \
                       --record-case @/recorded.case";
        let run = survives(
            &format!("--vcpus 2 --memory 32 {limit} {outputs}"),
            image,
            folder,
            harm,
        );
        if let Harm::Scribbles(part, _) = harm {
            // Without a ledger a guest is only taken at its word, and the run says so.
            let believed = !JUDGED.contains(&part);
            assert_eq!(run.status() == 0, believed, "{harm:?}: {run}");
        }
        survives(
            &format!("--vcpus 2 --memory 32 {limit} --stats prometheus"),
            image,
            folder,
            harm,
        );
    });
}

#[test]
fn searches_with_every_output() {
    each(1, |harm, image, folder| {
        let run = survives(
            "explore @/a.case --granularity probe --strategy exhaustive --time-limit 1s --keep-going \
             --stats junit --stats-file @/stats.xml --report @/page.html --result @/result.json \
             --schedule @/found.json --checkpoint @/kept",
            image,
            folder,
            harm,
        );
        assert_ne!(
            run.status(),
            0,
            "{harm:?}: there is something to find: {run}"
        );
    });
}

#[test]
fn replays_with_every_output() {
    each(1, |harm, image, folder| {
        survives(
            "replay @/given.json --any-image --time-limit 1s --stats junit --stats-file @/stats.xml \
             --report @/page.html",
            image,
            folder,
            harm,
        );
    });
}

#[test]
#[ignore = "a bench waits a minute for a guest that never halts: make test-long"]
fn benches_with_every_output() {
    each(2, |harm, image, folder| {
        survives(
            "bench --vcpus 2 --by ipi --to one --receiver halted --transport x2apic --rounds 8 --runs 1 \
             --traced --json @/bench.json",
            image,
            folder,
            harm,
        );
    });
}
