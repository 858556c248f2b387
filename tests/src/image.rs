//! Small guest images: ELF64 files with a PVH entry note around a few instructions, or with
//! something wrong in them. The code starts in 32-bit protected mode with flat segments and no
//! paging.

use std::fmt;
use std::fs;
use std::path::Path;

use iced_x86::code_asm::{CodeAssembler, CodeLabel};
use shared::exit::ExitCode;
use shared::manifest::{self, Argument, CounterRole, ENDS, IN_CASE, Measure, PointRole, Record};
use shared::ports::{self, Doorbell};
use shared::probe::{Point, SECTION};
use shared::stop;
use tempfile::NamedTempFile;
use zerocopy::IntoBytes;

/// Where the code lies in guest-physical memory, and starts.
pub const CODE: u32 = 0x10_0000;
/// The points by which [`measurable`] says that rounds are found.
pub const BENCH: [&str; 2] = ["bench.start", "bench.round"];
/// Where the points of an image that can be explored lie.
const POINTS: u32 = 0x11_0000;
/// The owner of the PVH note.
pub const XEN: &[u8] = b"Xen\0";
/// The type of the PVH note, `XEN_ELFNOTE_PHYS32_ENTRY`.
pub const PHYS32_ENTRY: u32 = 18;
/// `PT_LOAD`, a segment to load.
pub const LOAD: u32 = 1;
/// `PT_NOTE`, a segment of notes.
pub const NOTE: u32 = 4;

/// The deeds of an image that can be explored, one of which ends the workload.
const DEEDS: [Record; 2] = [
    Record::deed(1, "irqs-off", &[], "").with(IN_CASE),
    Record::deed(2, "finish", &[Argument::Cpus], "").with(ENDS),
];

const HEADER: u16 = 64;
const PROGRAM_HEADER: u16 = 56;

/// A program header and the bytes it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it is, such as [`LOAD`].
    pub kind: u32,
    /// Where it goes in guest-physical memory.
    pub address: u64,
    /// Its bytes in the file.
    pub bytes: Vec<u8>,
    /// Its size in memory.
    pub memory: u64,
}

impl Segment {
    /// A loadable segment as large in memory as in the file.
    pub fn load(address: u64, bytes: &[u8]) -> Self {
        Self {
            kind: LOAD,
            address,
            bytes: bytes.to_vec(),
            memory: bytes.len() as u64,
        }
    }

    /// A segment of one note.
    pub fn note(name: &[u8], kind: u32, description: &[u8]) -> Self {
        let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
        let mut bytes = Vec::new();
        bytes.extend(length(name));
        bytes.extend(length(description));
        bytes.extend(kind.to_le_bytes());
        for part in [name, description] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        Self {
            kind: NOTE,
            address: 0,
            memory: bytes.len() as u64,
            bytes,
        }
    }

    /// The note that makes a file bootable at `entry`.
    pub fn entry(entry: u32) -> Self {
        Self::note(XEN, PHYS32_ENTRY, &entry.to_le_bytes())
    }
}

/// An ELF64 file for x86-64 with these segments, one after the other.
pub fn elf(segments: &[Segment]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(2_u16.to_le_bytes()); // an executable
    file.extend(62_u16.to_le_bytes()); // for x86-64
    file.extend(1_u32.to_le_bytes());
    file.extend(u64::from(CODE).to_le_bytes());
    file.extend(u64::from(HEADER).to_le_bytes()); // program headers follow at once
    file.extend([0; 12]); // no section headers, no flags
    for half in [HEADER, PROGRAM_HEADER, segments.len() as u16, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut offset = u64::from(HEADER) + segments.len() as u64 * u64::from(PROGRAM_HEADER);
    for segment in segments {
        let size = segment.bytes.len() as u64;
        file.extend(segment.kind.to_le_bytes());
        file.extend(7_u32.to_le_bytes()); // readable, writable, executable
        for word in [
            offset,
            segment.address,
            segment.address,
            size,
            segment.memory,
            4,
        ] {
            file.extend(word.to_le_bytes());
        }
        offset += size;
    }
    for segment in segments {
        file.extend(&segment.bytes);
    }
    file
}

/// An ELF32 file for i386 with these segments, one after the other.
pub fn elf32(segments: &[Segment]) -> Vec<u8> {
    const HEADER: u16 = 52;
    const PROGRAM_HEADER: u16 = 32;
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(2_u16.to_le_bytes()); // an executable
    file.extend(3_u16.to_le_bytes()); // for i386
    for word in [1, CODE, HEADER.into(), 0, 0] {
        file.extend(u32::to_le_bytes(word));
    }
    for half in [HEADER, PROGRAM_HEADER, segments.len() as u16, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut offset = u32::from(HEADER) + segments.len() as u32 * u32::from(PROGRAM_HEADER);
    for segment in segments {
        let (address, size) = (segment.address as u32, segment.bytes.len() as u32);
        let memory = segment.memory as u32;
        for word in [segment.kind, offset, address, address, size, memory, 7, 4] {
            file.extend(word.to_le_bytes());
        }
        offset += size;
    }
    for segment in segments {
        file.extend(&segment.bytes);
    }
    file
}

/// An ELF64 file with one section of this name and these bytes, said to lie at `address`.
pub fn with_section(name: &str, bytes: &[u8], address: u64) -> Vec<u8> {
    add_section(elf(&[]), name, bytes, address)
}

/// An ELF64 file with these sections: their names, bytes and addresses.
pub fn with_sections(sections: &[(&str, &[u8], u64)]) -> Vec<u8> {
    add_sections(elf(&[]), sections)
}

/// A bootable image of some machine code, with one section of this name and these bytes, which is
/// not loaded.
pub fn bootable_with_section(code: &[u8], name: &str, bytes: &[u8]) -> Vec<u8> {
    add_section(bootable(code), name, bytes, 0)
}

/// An ELF64 file that has no sections, with one of this name and these bytes, said to lie at
/// `address`.
fn add_section(file: Vec<u8>, name: &str, bytes: &[u8], address: u64) -> Vec<u8> {
    add_sections(file, &[(name, bytes, address)])
}

/// An ELF64 file that has no sections, with these: their names, bytes and addresses.
fn add_sections(mut file: Vec<u8>, sections: &[(&str, &[u8], u64)]) -> Vec<u8> {
    const SECTION_HEADER: u16 = 64;
    // The names: none, those of the sections, and that of the names themselves.
    let mut names = vec![0];
    let mut headers = vec![(0, 0, 0, 0, 0)];
    for (name, bytes, address) in sections {
        headers.push((
            names.len() as u32,
            1,
            *address,
            file.len() as u64,
            bytes.len() as u64,
        ));
        file.extend(*bytes);
        names.extend(name.as_bytes());
        names.push(0);
    }
    let last_name = names.len() as u32;
    names.extend(b".shstrtab\0");
    headers.push((last_name, 3, 0, file.len() as u64, names.len() as u64));
    file.extend(&names);
    let at = file.len() as u64;
    for (name, kind, address, offset, size) in &headers {
        file.extend(u32::to_le_bytes(*name));
        file.extend(u32::to_le_bytes(*kind));
        for word in [0, *address, *offset, *size, 0, 1, 0] {
            file.extend(u64::to_le_bytes(word));
        }
    }
    patch(&mut file, 40, &at.to_le_bytes());
    let count = headers.len() as u16;
    for (at, half) in [(58, SECTION_HEADER), (60, count), (62, count - 1)] {
        patch(&mut file, at, &half.to_le_bytes());
    }
    file
}

/// Overwrites bytes of a file.
pub fn patch(file: &mut [u8], at: usize, with: &[u8]) {
    file[at..at + with.len()].copy_from_slice(with);
}

/// A bootable image of some machine code.
pub fn bootable(code: &[u8]) -> Vec<u8> {
    elf(&[Segment::load(CODE.into(), code), Segment::entry(CODE)])
}

/// What a guest says of itself that can be measured, if it has the points of [`BENCH`].
pub fn measurable() -> Vec<Record> {
    let word = |name: &str, measure, values: &[&str]| {
        let values = (0..).zip(values);
        let values = values.map(|(number, value)| Record::value(name, number, value));
        let word = Record::word(name, "").measured_as(measure);
        std::iter::once(word).chain(values).collect::<Vec<_>>()
    };
    [
        vec![Record::guest("hand-made", "1", "")],
        word("to", Measure::To, &["nobody", "one"]),
        word("by", Measure::By, &["ipi"]),
        word("receiver", Measure::Receiver, &["halted", "stalled"]),
        word("transport", Measure::Transport, &["x2apic"]),
        word("calls", Measure::Rounds, &[]),
        vec![
            Record::point(BENCH[0], PointRole::Start),
            Record::point(BENCH[1], PointRole::Round),
        ],
    ]
    .concat()
}

/// An assembler for 32-bit code, with methods for what guests do.
pub struct Code(CodeAssembler);

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.instructions()).finish()
    }
}

impl Code {
    /// A bootable image of the code that `write` writes, which says of itself no more than that it
    /// knows the lab.
    ///
    /// # Panics
    /// If it cannot be assembled.
    pub fn image(write: impl FnOnce(&mut Self)) -> Image {
        let manifest = [Record::guest("hand-made", "1", "")];
        let file = bootable(&Self::assemble(write));
        Image::new(&add_section(
            file,
            manifest::SECTION,
            manifest.as_bytes(),
            0,
        ))
    }

    /// A bootable image of the code that `write` writes, which knows of no lab.
    ///
    /// # Panics
    /// If it cannot be assembled.
    pub fn without_lab(write: impl FnOnce(&mut Self)) -> Image {
        Image::new(&bootable(&Self::assemble(write)))
    }

    fn assemble(write: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut code = Self(CodeAssembler::new(32).expect("32 is a bitness"));
        write(&mut code);
        code.0.assemble(CODE.into()).expect("assembled code")
    }

    /// A bootable image of the code that `write` writes, with what a search by probes needs:
    /// points, and a deed that ends the workload.
    ///
    /// # Panics
    /// If it cannot be assembled.
    pub fn explorable(write: impl FnOnce(&mut Self)) -> Image {
        let manifest = [&[Record::guest("hand-made", "1", "")], &DEEDS[..]].concat();
        Self::that_says(&manifest, &[], write)
    }

    /// A bootable image of the code that `write` writes, that every command takes: as
    /// [`Code::explorable`], and it can be measured. What it says that it counts is whatever stands
    /// there.
    ///
    /// # Panics
    /// If it cannot be assembled.
    pub fn for_every_command(write: impl FnOnce(&mut Self)) -> Image {
        let counter = |number, name, role| Record::counter(number, name, "whatever").reckoned(role);
        let counters = [
            counter(0, "sent", CounterRole::Sent).sent_by("x2apic"),
            counter(1, "targets", CounterRole::Targets),
            counter(2, "received", CounterRole::Received),
            counter(63, "empty", CounterRole::Empty),
        ];
        let oracles = [Record::oracle(1, "lost", "is lost")];
        let manifest = [&measurable(), &DEEDS[..], &counters, &oracles].concat();
        Self::that_says(&manifest, &BENCH, write)
    }

    /// The code that `write` writes, with this manifest, the points that a search needs, and others.
    fn that_says(manifest: &[Record], others: &[&str], write: impl FnOnce(&mut Self)) -> Image {
        let bytes = Self::assemble(write);
        let mut points = Vec::new();
        for name in [&[stop::IDLE, stop::LEFT], others].concat() {
            let point = Point::new(name, "hand-made", 1);
            points.extend(point.name);
            points.extend(point.file);
            points.extend(point.line.to_le_bytes());
            points.resize(points.len().next_multiple_of(size_of::<Point>()), 0);
        }
        let file = elf(&[
            Segment::load(CODE.into(), &bytes),
            Segment::load(POINTS.into(), &points),
            Segment::entry(CODE),
        ]);
        let sections = [
            (SECTION, &*points, POINTS.into()),
            (manifest::SECTION, manifest.as_bytes(), 0),
        ];
        Image::new(&add_sections(file, &sections))
    }

    /// Rings the doorbell of the point at which a CPU waits for its first command, and is held.
    pub fn idle(&mut self) {
        self.name_idle();
        self.out(ports::DOORBELL, Doorbell::Reached as u32);
    }

    /// Puts into EDI the point at which a CPU waits for its first command, where the doorbell's
    /// reader expects it.
    pub fn name_idle(&mut self) {
        use iced_x86::code_asm::edi;
        self.emit(|asm| asm.mov(edi, POINTS));
    }

    /// Stores `value` at `offset` from the address in EBX.
    pub fn store_behind_ebx(&mut self, offset: u32, value: u32) {
        use iced_x86::code_asm::{dword_ptr, ebx};
        self.emit(|asm| asm.mov(dword_ptr(ebx + offset), value));
    }

    /// Enables the local APIC, which then holds what is sent to this CPU.
    pub fn apic_on(&mut self) {
        self.store(0xfee0_00f0, 0x1ff);
    }

    /// Sends `vector` to this CPU itself.
    pub fn interrupt_itself(&mut self, vector: u8) {
        self.store(0xfee0_0300, 0x4_4000 | u32::from(vector));
    }

    /// Puts the address of the first page above 1 MiB that begins with `word` into EBX.
    pub fn find_page(&mut self, word: u32) {
        use iced_x86::code_asm::{dword_ptr, ebx};
        let mut next = self.label();
        self.emit(|asm| {
            asm.mov(ebx, CODE)?;
            asm.set_label(&mut next)?;
            asm.add(ebx, 0x1000)?;
            asm.cmp(dword_ptr(ebx), word)?;
            asm.jne(next)
        });
    }

    /// `out port, value`, 32 bits wide.
    pub fn out(&mut self, port: u16, value: u32) {
        use iced_x86::code_asm::{dx, eax, edx};
        self.emit(|asm| {
            asm.mov(edx, u32::from(port))?;
            asm.mov(eax, value)?;
            asm.out(dx, eax)
        });
    }

    /// Writes to the console.
    pub fn say(&mut self, text: &str) {
        use iced_x86::code_asm::{al, dx, edx};
        self.emit(|asm| {
            asm.mov(edx, u32::from(ports::CONSOLE))?;
            for byte in text.bytes() {
                asm.mov(al, u32::from(byte))?;
                asm.out(dx, al)?;
            }
            Ok(())
        });
    }

    /// Stores a word at an absolute address.
    pub fn store(&mut self, address: u32, value: u32) {
        use iced_x86::code_asm::{dword_ptr, ebx};
        self.emit(|asm| {
            asm.mov(ebx, address)?;
            asm.mov(dword_ptr(ebx), value)
        });
    }

    /// Ends the run.
    pub fn exit(&mut self, code: ExitCode) {
        self.out(ports::EXIT, code as u32);
    }

    /// A loop that never ends, with interrupts off.
    pub fn spin(&mut self) {
        self.emit(CodeAssembler::cli);
        self.for_ever(|code| code.emit(CodeAssembler::pause));
    }

    /// Sleep without end, with interrupts off.
    pub fn halt(&mut self) {
        self.emit(CodeAssembler::cli);
        self.for_ever(|code| code.emit(CodeAssembler::hlt));
    }

    /// A triple fault: an undefined instruction without an interrupt table.
    pub fn triple_fault(&mut self) {
        use iced_x86::code_asm::{ebx, ptr};
        self.emit(|asm| {
            asm.mov(ebx, 0x1000)?; // zero
            asm.lidt(ptr(ebx))?;
            asm.ud2()
        });
    }

    /// Fills memory with one word, by the string instruction, which is fast on any host.
    pub fn fill(&mut self, address: u32, words: u32, value: u32) {
        use iced_x86::code_asm::{eax, ecx, edi};
        self.emit(|asm| {
            asm.cld()?;
            asm.mov(edi, address)?;
            asm.mov(ecx, words)?;
            asm.mov(eax, value)?;
            asm.rep().stosd()
        });
    }

    /// Repeats `body` for ever.
    pub fn for_ever(&mut self, body: impl FnOnce(&mut Self)) {
        let mut again = self.label();
        self.emit(|asm| asm.set_label(&mut again));
        body(self);
        self.emit(|asm| asm.jmp(again));
    }

    /// A new label.
    pub fn label(&mut self) -> CodeLabel {
        self.0.create_label()
    }

    /// Any instructions.
    ///
    /// # Panics
    /// If there are no such instructions.
    pub fn emit(
        &mut self,
        write: impl FnOnce(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>,
    ) {
        write(&mut self.0).expect("instructions that exist");
    }
}

/// An image in a temporary file, which is deleted with it.
#[derive(Debug)]
pub struct Image(NamedTempFile);

impl Image {
    /// A file of these bytes, readable for every user.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn new(bytes: &[u8]) -> Self {
        let file = tempfile::Builder::new()
            .prefix("guest-")
            .suffix(".bin")
            .tempfile()
            .expect("a temporary file");
        fs::write(file.path(), bytes).expect("room for a temporary file");
        Self(file)
    }

    /// The image in `path`, without its manifest.
    ///
    /// # Panics
    /// If it has no manifest, or cannot be read.
    pub fn that_says_nothing(path: &Path) -> Self {
        let mut bytes = fs::read(path).expect("an image");
        // The name of the section, with the zeroes around it.
        let name = b"\0.manifest\0";
        let places = bytes.windows(name.len()).enumerate();
        let places = places.filter(|(_, window)| window == name);
        let places: Vec<_> = places.map(|(at, _)| at).collect();
        assert!(!places.is_empty(), "no section of this name");
        for at in places {
            patch(&mut bytes, at, b"\0.nothing.\0");
        }
        Self::new(&bytes)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}
