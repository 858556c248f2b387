//! Files that are not valid guest images: each is refused before a machine is made, with status 2
//! and one message that names the file and what is wrong with it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use shared::manifest;
use tests::image::{
    CODE, Image, LOAD, PHYS32_ENTRY, Segment, XEN, bootable, bootable_with_section, elf,
    measurable, patch,
};
use tests::{Vmm, skip};
use zerocopy::IntoBytes;

/// Two instructions, `cli; hlt`. None of these images gets far enough to execute them.
const CLI_HLT: [u8; 2] = [0xfa, 0xf4];

#[track_caller]
fn refused(path: impl AsRef<Path>, why: &str) {
    let path = path.as_ref();
    let run = Vmm::with("--vcpus 2")
        .arg(path)
        .limit(Duration::from_secs(20))
        .run();
    let name = path.file_name().expect("a name").to_string_lossy();
    run.ends_with(2).complains_of(&name).says(why);
    assert_eq!(run.stderr.lines().count(), 1, "{run}");
}

#[track_caller]
fn bytes_refused(bytes: &[u8], why: &str) {
    refused(Image::new(bytes).path(), why);
}

/// A good image with some bytes of its header overwritten.
fn patched(at: usize, with: &[u8]) -> Vec<u8> {
    let mut file = bootable(&CLI_HLT);
    patch(&mut file, at, with);
    file
}

/// A good note and these segments.
fn with_segments(segments: &[Segment]) -> Vec<u8> {
    elf(&[&[Segment::entry(CODE)], segments].concat())
}

#[test]
fn what_is_not_a_readable_file() {
    refused("/nonexistent/guest.bin", "No such file");
    refused(std::env::temp_dir(), "not a file");
    refused("/dev/zero", "not a file");
    refused("/proc/self/mem", "");
}

#[test]
fn a_pipe_that_nobody_writes_to_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("fifo");
    let name = CString::new(path.as_os_str().as_bytes()).expect("no zero in it");
    // SAFETY: `name` is a string that ends with a zero.
    let made = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
    assert_eq!(made, 0, "mkfifo");
    refused(path, "not a file");
}

#[test]
fn a_file_without_permission() {
    let image = Image::new(&bootable(&CLI_HLT));
    std::fs::set_permissions(image.path(), PermissionsExt::from_mode(0o000)).expect("our own file");
    if std::fs::File::open(image.path()).is_ok() {
        skip("this user may read every file");
        return;
    }
    refused(image.path(), "Permission denied");
}

#[test]
fn probes_that_are_none() {
    let image = Image::new(&bootable_with_section(&CLI_HLT, ".probes", &[0; 100]));
    for command in ["--vcpus 1", "probes"] {
        let run = Vmm::with(command).arg(image.path()).run();
        run.ends_with(2).says("section .probes has 100 bytes");
    }
}

#[test]
fn points_of_a_bench_that_are_not_in_the_image() {
    // It can be measured, were its points in its image.
    let records = measurable();
    let section = (manifest::SECTION, records.as_bytes());
    let image = Image::new(&bootable_with_section(&CLI_HLT, section.0, section.1));
    for receiver in ["halted", "stalled"] {
        let run = Vmm::with("bench --vcpus 2 --receiver")
            .arg(receiver)
            .arg(image.path())
            .limit(Duration::from_secs(20))
            .run();
        let name = image.path().file_name().expect("a name");
        run.ends_with(2).complains_of(&name.to_string_lossy());
        run.says("\"bench.start\"").says("no probe of that name");
        assert_eq!(run.stderr.lines().count(), 1, "{run}");
    }
}

#[test]
fn what_is_no_elf_file_for_this_machine() {
    bytes_refused(b"", "empty");
    bytes_refused(b"\n", "not an ELF file");
    bytes_refused(b"#!/bin/sh\nexit 0\n", "not an ELF file");
    bytes_refused(&[0xff; 8192], "not an ELF file");
    bytes_refused(&patched(4, &[1]), "ELF32 file for machine type 62");
    bytes_refused(&patched(4, &[3]), "ELF file of class 3");
    bytes_refused(&patched(5, &[2]), "big-endian");
    bytes_refused(&patched(18, &183_u16.to_le_bytes()), "183");
    bytes_refused(&patched(32, &[0; 8]), "no loadable segment");
    bytes_refused(&patched(54, &[1, 0]), "damaged");
    bytes_refused(&patched(56, &[0; 2]), "");
}

#[test]
fn a_file_cut_short_anywhere() {
    let whole = with_segments(&[Segment::load(CODE.into(), &[0x90; 256])]);
    for length in 1..whole.len() {
        // Most single bytes make no difference, except at the ends of structures.
        if length % 7 == 0 || length < 8 || whole.len() - length < 3 {
            let why = if length < 4 {
                "not an ELF file"
            } else {
                "truncated"
            };
            bytes_refused(&whole[..length], why);
        }
    }
}

#[test]
fn a_file_too_large_to_be_a_guest() {
    let image = Image::new(&bootable(&CLI_HLT));
    let file = std::fs::File::options()
        .write(true)
        .open(image.path())
        .expect("our own file");
    // Sparse, so that it takes no space.
    file.set_len(1 << 40).expect("a sparse file");
    refused(image.path(), "too many");
}

#[test]
fn an_image_that_does_not_say_where_to_start() {
    let code = Segment::load(CODE.into(), &CLI_HLT);
    let entry = CODE.to_le_bytes();
    for note in [
        None,
        Some(Segment::note(b"GNU\0", PHYS32_ENTRY, &entry)),
        Some(Segment::note(XEN, PHYS32_ENTRY + 1, &entry)),
    ] {
        let segments: Vec<_> = std::iter::once(code.clone()).chain(note).collect();
        bytes_refused(&elf(&segments), "PVH");
    }
    for address in [0, CODE - 1, CODE + 2, u32::MAX] {
        let file = elf(&[code.clone(), Segment::entry(address)]);
        bytes_refused(&file, "lies in none of its segments");
    }
    let empty = Segment::note(XEN, PHYS32_ENTRY, &[]);
    bytes_refused(&elf(&[code.clone(), empty]), "damaged");
    let mut endless = Segment::entry(CODE);
    patch(&mut endless.bytes, 4, &u32::MAX.to_le_bytes());
    bytes_refused(&elf(&[code, endless]), "damaged");
}

#[test]
fn segments_where_there_is_no_memory() {
    let code = Segment::load(CODE.into(), &CLI_HLT);
    for address in [3 << 30, (3 << 30) - 1, 1 << 32, u64::MAX - 1, u64::MAX] {
        let file = with_segments(&[code.clone(), Segment::load(address, &[1, 2, 3])]);
        bytes_refused(&file, "device gap");
    }
    for memory in [3 << 30, u64::MAX] {
        let file = with_segments(&[Segment {
            memory,
            ..code.clone()
        }]);
        bytes_refused(&file, "device gap");
    }
    let small = Image::new(&with_segments(&[Segment {
        memory: 100 << 20,
        ..code.clone()
    }]));
    let run = Vmm::with("--memory 64").arg(small.path()).run();
    run.ends_with(2).complains_of("--memory 10");
    let shrunk = Segment { memory: 1, ..code };
    bytes_refused(
        &with_segments(&[shrunk]),
        "larger in the file than in memory",
    );
}

#[test]
fn segments_on_top_of_something() {
    let code = Segment::load(CODE.into(), &[0x90; 64]);
    for address in [CODE, CODE + 1, CODE + 63, CODE - 63] {
        let file = with_segments(&[code.clone(), Segment::load(address.into(), &[0xf4; 64])]);
        // The boot data lies below the code, and is the first thing that the message names.
        bytes_refused(&file, "overlap");
    }
    for address in [0x9_fc00, 0xa_0000, 0xe_0000, 0xf_0000, 0xf_fff0] {
        let file = with_segments(&[code.clone(), Segment::load(address, &[0; 64])]);
        bytes_refused(&file, "boot data");
    }
}

#[test]
fn nothing_but_headers() {
    bytes_refused(&elf(&[]), "no loadable segment");
    bytes_refused(&elf(&[Segment::entry(CODE)]), "no loadable segment");
    let nothing = Segment {
        kind: LOAD,
        address: CODE.into(),
        bytes: Vec::new(),
        memory: 0,
    };
    bytes_refused(&with_segments(&[nothing]), "no loadable segment");
}

#[test]
fn any_one_byte_of_the_headers_can_be_wrong() {
    let good = with_segments(&[Segment::load(CODE.into(), &CLI_HLT)]);
    for at in (0..64 + 2 * 56).step_by(3) {
        let mut file = good.clone();
        file[at] ^= 0xff;
        let image = Image::new(&file);
        let run = Vmm::with("--vcpus 1 --timeout 0.05")
            .arg(image.path())
            .run();
        // Some bytes have no meaning: then the guest boots and halts until its time is up. Without
        // KVM it never starts.
        assert!([2, 3, 5].contains(&run.status()), "byte {at}: {run}");
    }
}

/// The image in the file at `path`, with a section of this name that has a byte less than before.
fn cut_short(path: &Path, name: &str) -> Image {
    let mut file = std::fs::read(path).expect("an image");
    let number = |file: &[u8], at: usize, size: usize| {
        let bytes = file[at..at + size].iter().rev();
        bytes.fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    // As elf(5) has it: where the table of sections is, how many there are, and which has the names.
    let table = number(&file, 40, 8);
    let (count, names) = (number(&file, 60, 2), number(&file, 62, 2));
    let names = number(&file, table + 64 * names + 24, 8);
    let header = (0..count).map(|index| table + 64 * index).find(|header| {
        let at = names + number(&file, *header, 4);
        file[at..].starts_with(format!("{name}\0").as_bytes())
    });
    let size = header.expect("such a section") + 32;
    let less = number(&file, size, 8) as u64 - 1;
    patch(&mut file, size, &less.to_le_bytes());
    Image::new(&file)
}

/// One fault has one status, whoever comes upon it.
#[test]
fn a_damaged_section_has_the_same_status_everywhere() {
    tests::need_kvm();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("room for a line");
        path
    };
    let case = at("a.case", "cpus 1\n0: idle\nexpect lost\n");
    let schedule = at(
        "a.json",
        r#"{"form": "ipi-lab-schedule/1", "case": "cpus 1\n0: idle", "append": "",
            "granularity": "access", "image": "", "begins": "",
            "turns": [{"cpu": 0, "stops": 1, "until": "idle"}], "breaks": []}"#,
    );
    let idle = at("a.rhai", "boot(#{ append: `workload=puppet` });");
    for section in [".probes", ".manifest"] {
        let (run, explored) = (
            cut_short(&tests::guest(), section),
            cut_short(&tests::explore_image(), section),
        );
        let boots = at(
            "b.rhai",
            &format!("boot(#{{ guest: \"{}\" }});", run.path().display()),
        );
        let ways = [
            Vmm::new().arg(run.path()),
            Vmm::with("--script").arg(&idle).arg(run.path()),
            Vmm::with("--script").arg(&boots).arg(tests::guest()),
            Vmm::with("bench").arg(run.path()),
            Vmm::with("describe").arg(run.path()),
            Vmm::with("probes").arg(run.path()),
            Vmm::with("explore").arg(&case).arg(explored.path()),
            Vmm::with("explore --jobs 2")
                .arg(&case)
                .arg(explored.path()),
            Vmm::with("reduce").arg(&case).arg(explored.path()),
            Vmm::with("replay --any-image")
                .arg(&schedule)
                .arg(explored.path()),
        ];
        for vmm in ways {
            let shown = format!("{vmm:?}");
            // What does not need the section does not look at it.
            if section == ".probes" && shown.contains("\"describe\"")
                || section == ".manifest" && shown.contains("\"probes\"")
            {
                continue;
            }
            let run = vmm.run();
            run.ends_with(2).says(section);
        }
    }
}
