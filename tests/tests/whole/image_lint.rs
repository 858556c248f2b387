//! The guest images contain only instructions that a host which emulates ring 0 can execute:
//! baseline integer instructions and those that only kernels use. And their probes are named where
//! the VMM looks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::mem::offset_of;
use std::ops::Range;
use std::path::PathBuf;

use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, Register,
};
use object::read::elf::{ElfFile64, SectionHeader};
use object::{Object, ObjectSection, ObjectSymbol};
use shared::probe::{FILE_LEN, MAX_POINTS, NAME_LEN, Point, SECTION};

/// Code that starts before long mode, and enters it by a far jump.
const CODE32: [&str; 3] = ["pvh_entry", "pvh_start", "other_cpu_start"];

/// Features that every x86-64 processor has and every KVM executes, without SSE and x87.
const BASELINE: [CpuidFeature; 15] = [
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL8086_ONLY,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CPUID,
    CpuidFeature::CMOV,
    CpuidFeature::CX8,
    CpuidFeature::MSR,
    CpuidFeature::TSC,
    CpuidFeature::PAUSE,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::SMM,
];

/// Compilers write `rep bsf` where the operand is not zero: the same on every processor, faster on
/// those that take it for `tzcnt`. Without BMI switched on they never write it elsewhere.
const OPTIONS: u32 = DecoderOptions::NO_MPFX_0FBC;

fn is_fence(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Lfence | Mnemonic::Mfence | Mnemonic::Sfence
    )
}

fn is_forbidden(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::INVALID
            | Mnemonic::Int
            | Mnemonic::Int1
            | Mnemonic::Int3
            | Mnemonic::Into
            | Mnemonic::Cmpxchg16b
            | Mnemonic::Popcnt
            | Mnemonic::Rdtscp
            | Mnemonic::Rdpid
            | Mnemonic::Xgetbv
            | Mnemonic::Monitor
            | Mnemonic::Mwait
            | Mnemonic::Rsm
    )
}

fn is_vector(register: Register) -> bool {
    register.is_vector_register()
        || register.is_mm()
        || register.is_st()
        || register.is_k()
        || register.is_tmm()
}

/// Why an instruction must not be in the image.
fn objection(instruction: &Instruction, info: &mut InstructionInfoFactory) -> Option<String> {
    if is_forbidden(instruction.mnemonic()) {
        return Some(format!("{:?}", instruction.mnemonic()));
    }
    let used = info.info(instruction).used_registers();
    if let Some(register) = used.iter().find(|used| is_vector(used.register())) {
        return Some(format!("{:?}", register.register()));
    }
    instruction
        .cpuid_features()
        .iter()
        .find(|feature| !BASELINE.contains(feature) && !is_fence(instruction.mnemonic()))
        .map(|feature| format!("{feature:?}"))
}

/// Code between two addresses of the file.
struct Piece<'data> {
    /// The symbol at its start, if there is one.
    name: Option<&'data str>,
    /// Whether it may be, or end with, padding.
    filling: bool,
    range: Range<u64>,
}

/// Splits `section` at its symbols. Functions have a size; labels extend to the next symbol.
fn pieces<'data>(
    section: Range<u64>,
    symbols: &BTreeMap<u64, (u64, &'data str)>,
) -> Vec<Piece<'data>> {
    let mut pieces = Vec::new();
    let mut at = section.start;
    let gap = |range| Piece {
        name: None,
        filling: true,
        range,
    };
    for (&start, &(size, name)) in symbols.range(section.clone()) {
        if start < at {
            continue; // a label inside a function
        }
        if at < start {
            pieces.push(gap(at..start));
        }
        let next = symbols.range(start + 1..section.end).next();
        at = match size {
            0 => next.map_or(section.end, |(next, _)| *next),
            _ => start + size,
        };
        pieces.push(Piece {
            name: Some(name),
            filling: size == 0,
            range: start..at,
        });
    }
    if at < section.end {
        pieces.push(gap(at..section.end));
    }
    pieces
}

struct Lint<'data> {
    file: &'data ElfFile64<'data>,
    /// The addresses of the hypercall instructions, which are executed only where they were seen to
    /// work.
    hypercalls: Vec<u64>,
    info: InstructionInfoFactory,
    objections: String,
    instructions: usize,
}

impl Lint<'_> {
    fn look(&mut self, piece: &Piece<'_>) {
        let name = piece.name.unwrap_or("between functions");
        let range = &piece.range;
        let code = self.file.sections().find_map(|section| {
            section
                .data_range(range.start, range.end - range.start)
                .ok()?
        });
        let Some(code) = code else {
            self.object(name, range.start, "is in no section");
            return;
        };
        let bitness = if CODE32.contains(&name) { 32 } else { 64 };
        let mut decoder = Decoder::with_ip(bitness, code, range.start, OPTIONS);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            self.instructions += 1;
            if piece.filling && instruction.mnemonic() == Mnemonic::Int3 {
                continue;
            }
            if self.hypercalls.contains(&instruction.ip()) {
                continue;
            }
            if let Some(objection) = objection(&instruction, &mut self.info) {
                let text = format!("{instruction}   ({objection})");
                self.object(name, instruction.ip(), &text);
            }
            if decoder.bitness() == 32 && instruction.is_jmp_far() {
                let rest = &code[decoder.position()..];
                decoder = Decoder::with_ip(64, rest, instruction.next_ip(), OPTIONS);
            }
        }
    }

    fn object(&mut self, name: &str, address: u64, text: &str) {
        let _ = writeln!(self.objections, "{address:#10x} {name}: {text}");
    }
}

/// Checks each image of the guest under test.
fn look_at_images(look: impl Fn(&ElfFile64<'_>)) {
    look_at([tests::guest(), tests::explore_image()], look);
}

fn look_at(images: impl IntoIterator<Item = PathBuf>, look: impl Fn(&ElfFile64<'_>)) {
    for path in images {
        println!("{}:", path.display());
        let bytes = std::fs::read(path).expect("a guest image");
        look(&ElfFile64::parse(&*bytes).expect("an ELF file"));
    }
}

#[test]
fn an_image_has_no_instruction_that_cannot_be_emulated() {
    let of_litmus = ["litmus.bin", "litmus-explore.bin"].map(tests::other_image);
    look_at_images(has_no_instruction_that_cannot_be_emulated);
    look_at(of_litmus, has_no_instruction_that_cannot_be_emulated);
    // There where there is a C compiler.
    let in_c =
        ["c-parts.bin", "c-parts-explore.bin"].map(|name| tests::guest().with_file_name(name));
    if in_c.iter().all(|image| image.is_file()) {
        look_at(in_c, has_no_instruction_that_cannot_be_emulated);
    }
}

fn has_no_instruction_that_cannot_be_emulated(file: &ElfFile64<'_>) {
    let mut symbols: BTreeMap<u64, (u64, &str)> = BTreeMap::new();
    for symbol in file.symbols() {
        let name = symbol.name().unwrap_or_default();
        if !name.is_empty() && symbol.section_index().is_some() {
            // Of several symbols at one address the function is taken.
            let known = symbols.entry(symbol.address()).or_default();
            *known = (*known).max((symbol.size(), name));
        }
    }
    assert!(!symbols.is_empty(), "the image has no symbols");
    let executable: Vec<Range<u64>> = file
        .sections()
        .filter(|section| {
            let flags = section
                .elf_section_header()
                .sh_flags(object::Endianness::Little);
            flags.0 & object::elf::SHF_EXECINSTR.0 != 0
        })
        .map(|section| section.address()..section.address() + section.size())
        .collect();
    assert!(!executable.is_empty(), "the image has no code");

    let hypercalls = ["hypercall_vmcall", "hypercall_vmmcall"].map(|name| address(file, name));
    let mut lint = Lint {
        file,
        hypercalls: hypercalls.to_vec(),
        info: InstructionInfoFactory::new(),
        objections: String::new(),
        instructions: 0,
    };
    for section in executable {
        for piece in pieces(section, &symbols) {
            lint.look(&piece);
        }
    }
    let Lint {
        objections,
        instructions,
        ..
    } = lint;
    assert!(instructions > 1000, "only {instructions} instructions");
    assert!(objections.is_empty(), "in the guest image:\n{objections}");
}

#[test]
fn the_lint_knows_what_it_looks_for() {
    let mut info = InstructionInfoFactory::new();
    let mut objects = |code: &[u8]| {
        let instruction = Decoder::new(64, code, OPTIONS).decode();
        objection(&instruction, &mut info).is_some()
    };
    for bad in [
        &[0x0f, 0x57, 0xc0][..],         // xorps xmm0, xmm0
        &[0x66, 0x0f, 0x6f, 0x00],       // movdqa xmm0, [rax]
        &[0xc5, 0xf8, 0x77],             // vzeroupper
        &[0x0f, 0x6f, 0xc1],             // movq mm0, mm1
        &[0x0f, 0x77],                   // emms
        &[0xd9, 0xe8],                   // fld1
        &[0x0f, 0xae, 0x10],             // ldmxcsr [rax]
        &[0xf3, 0x0f, 0xb8, 0xc1],       // popcnt eax, ecx
        &[0xf3, 0x0f, 0xbd, 0xc1],       // lzcnt eax, ecx
        &[0xc4, 0xe2, 0x78, 0xf2, 0xc1], // andn eax, eax, ecx
        &[0x48, 0x0f, 0xc7, 0x08],       // cmpxchg16b [rax]
        &[0x0f, 0x01, 0xf9],             // rdtscp
        &[0xf3, 0x0f, 0xc7, 0xf8],       // rdpid rax
        &[0x0f, 0x01, 0xd0],             // xgetbv
        &[0x0f, 0x01, 0xc8],             // monitor
        &[0x0f, 0x01, 0xc9],             // mwait
        &[0xcc],                         // int3
        &[0xcd, 0x80],                   // int 0x80
        &[0x0f, 0x01, 0xc1],             // vmcall, where it is not expected
        &[0x0f, 0xc7, 0xf0],             // rdrand eax
    ] {
        assert!(objects(bad), "{bad:x?} passes");
    }
    for good in [
        &[0xf3, 0x0f, 0xbc, 0xc1][..],   // rep bsf eax, ecx
        &[0x90],                         // nop
        &[0xf3, 0x90],                   // pause
        &[0x0f, 0xae, 0xf0],             // mfence
        &[0xf0, 0x48, 0x0f, 0xb1, 0x08], // lock cmpxchg [rax], rcx
        &[0x0f, 0x31],                   // rdtsc
        &[0x0f, 0x30],                   // wrmsr
        &[0x0f, 0xa2],                   // cpuid
        &[0xf3, 0x48, 0xab],             // rep stosq
        &[0x48, 0xcf],                   // iretq
        &[0xef],                         // out dx, eax
        &[0x48, 0x0f, 0x44, 0xc1],       // cmove rax, rcx
        &[0x0f, 0x0b],                   // ud2
        &[0x0f, 0x22, 0xd8],             // mov cr3, rax
        &[0x0f, 0x01, 0x18],             // lidt [rax]
        &[0xf4],                         // hlt
    ] {
        assert!(!objects(good), "{good:x?} does not");
    }
}

fn address(file: &ElfFile64<'_>, name: &str) -> u64 {
    let symbol = file.symbol_by_name(name);
    symbol.unwrap_or_else(|| panic!("no {name}")).address()
}

/// On a host that delivers an interrupt between `sti` and `hlt`, an idle CPU must not go to sleep
/// after it.
#[test]
fn every_ipi_looks_whether_it_came_before_the_idle_hlt() {
    look_at_images(has_ipis_that_look_whether_they_came_before_the_idle_hlt);
}

fn has_ipis_that_look_whether_they_came_before_the_idle_hlt(file: &ElfFile64<'_>) {
    let hlt = address(file, "idle_hlt");
    let is_entry = |name: &str| name.contains("5metal5traps5entry17h");
    let symbols = file.symbols();
    let entries: Vec<_> = symbols
        .filter(|symbol| symbol.name().is_ok_and(is_entry))
        .collect();
    // The vectors of the path, the wake-up vector, the last vector, the measured one and the timer's.
    assert_eq!(entries.len(), 6, "{entries:?}");
    for symbol in entries {
        let section = symbol.section_index().expect("it is somewhere");
        let section = file.section_by_index(section).expect("it is there");
        let code = section.data_range(symbol.address(), 32);
        let code = code.expect("its bytes").expect("it has some");
        let mut decoder = Decoder::with_ip(64, code, symbol.address(), OPTIONS);
        let first = decoder.decode();
        assert_eq!(first.mnemonic(), Mnemonic::Cmp, "{first}");
        assert_eq!(first.memory_base(), Register::RSP, "{first}");
        assert_eq!(first.immediate(1), hlt, "{first}");
        let (skip, step) = (decoder.decode(), decoder.decode());
        assert_eq!(skip.mnemonic(), Mnemonic::Jne, "{skip}");
        assert_eq!(step.mnemonic(), Mnemonic::Inc, "{step}");
        assert_eq!(skip.near_branch_target(), step.next_ip());
    }
}

/// A text, padded with zeroes to the size of its field.
fn text(field: &[u8]) -> &str {
    let end = field.iter().position(|byte| *byte == 0);
    let (text, rest) = field.split_at(end.unwrap_or(field.len()));
    assert!(rest.iter().all(|byte| *byte == 0), "{field:?}");
    assert!(
        !text.is_empty() && text.iter().all(u8::is_ascii_graphic),
        "{field:?}"
    );
    str::from_utf8(text).expect("it is ASCII")
}

#[test]
fn an_image_names_its_probes() {
    look_at_images(names_its_probes);
}

fn names_its_probes(file: &ElfFile64<'_>) {
    let section = file.section_by_name(SECTION).expect("a section of points");
    let flags = section
        .elf_section_header()
        .sh_flags(object::Endianness::Little);
    assert_ne!(flags.0 & object::elf::SHF_WRITE.0, 0, "it is writable");
    assert_eq!(section.address() % size_of::<Point>() as u64, 0);

    let points = section.data().expect("its contents");
    assert_eq!(points.len() % size_of::<Point>(), 0, "half a point");
    let points: Vec<_> = points.chunks_exact(size_of::<Point>()).collect();
    assert!((1..=MAX_POINTS).contains(&points.len()), "{}", points.len());
    let mut places = BTreeSet::new();
    let mut names = BTreeSet::new();
    for point in points {
        let field = |offset: usize, size: usize| &point[offset..offset + size];
        let name = text(field(offset_of!(Point, name), NAME_LEN));
        assert!(name.contains('.') || name == shared::stop::NAME, "{name}");
        names.insert(name);
        let source = text(field(offset_of!(Point, file), FILE_LEN));
        assert!(
            source.starts_with("guest/") && source.ends_with(".rs"),
            "{source}"
        );
        let line = field(offset_of!(Point, line), 4);
        assert!(
            line != [0; 4] && places.insert((source, line)),
            "{source} {name}"
        );
        assert_eq!(
            field(offset_of!(Point, armed), 4),
            [0; 4],
            "{name} is armed"
        );
    }
    for name in ["queue.visit", "csd.locked", "many.weighed", "cpu.idle"] {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
}
