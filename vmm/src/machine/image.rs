//! The guest image: read, checked, and copied into memory. Everything that can be wrong with an
//! image is found here, before there is a machine, and reported with the name of the image.
//! `linux-loader` copies the segments and trusts much of what is checked here. An image is an ELF
//! file with a PVH entry note, or a packed Linux kernel (bzImage) in which there is one.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux_loader::loader::{Elf, KernelLoader};
use object::elf::{
    ELFCLASS32, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_386, EM_X86_64, FileClass, FileHeader32,
    FileHeader64, Machine, NoteType, PT_LOAD, PT_NOTE,
};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadRef};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::kernel_file::{self, KernelFileError};
use super::layout::{BOOT_DATA, GAP_START, LOW_RAM_END};

use crate::control_characters::spell_out_path;

/// Largest image in bytes. No unikernel comes near this; a disk image that was given by mistake
/// does.
const LARGEST: u64 = 256 << 20;
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);

/// Why an image cannot be the guest.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", spell_out_path(.path))]
pub struct ImageError {
    path: PathBuf,
    #[source]
    problem: Problem,
}

/// What is wrong with a guest image.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be opened or read.
    #[error("cannot read the guest image")]
    Read(#[source] io::Error),
    /// It is not an ordinary file.
    #[error("not a file; name the guest image, such as target/guest.bin")]
    NotAFile,
    /// It has no bytes.
    #[error("the guest image is empty; build it again")]
    Empty,
    /// It has too many bytes.
    #[error("{0} bytes are too many for a guest image, the limit is {LARGEST}")]
    TooLarge(u64),
    /// It is not an ELF file.
    #[error("not an ELF file; give the linked guest image")]
    NotElf,
    /// It is neither for a 32-bit machine nor for a 64-bit one.
    #[error("an ELF file of class {0}; the guest must be ELF64 for x86-64, or ELF32 for i386")]
    Class(u8),
    /// Its bytes are in the wrong order.
    #[error("a big-endian ELF file; the guest must be for x86")]
    BigEndian,
    /// It is for another processor.
    #[error(
        "an ELF{bits} file for machine type {machine}; ELF64 must be for x86-64 (62), ELF32 for \
         i386 (3)"
    )]
    Machine {
        /// The machine type.
        machine: u16,
        /// 32 or 64.
        bits: u8,
    },
    /// It is a kernel that cannot be unpacked.
    #[error(transparent)]
    Kernel(#[from] KernelFileError),
    /// Its headers point past its end.
    #[error("the file is truncated: {0} lies beyond its {1} bytes; build it again")]
    Truncated(&'static str, u64),
    /// A header does not make sense.
    #[error("the ELF headers are damaged: {0}; build it again")]
    Damaged(&'static str),
    /// There is nothing to load.
    #[error("it has no loadable segment, so there is no guest in it")]
    NothingToLoad,
    /// A segment reaches beyond all memory that a guest can have.
    #[error(
        "segment {index} at {start:#x} does not end below the device gap at {GAP_START:#x}; link \
         the guest lower"
    )]
    Outside {
        /// Index of the program header.
        index: usize,
        /// Its physical address.
        start: u64,
    },
    /// A segment overlaps the boot data.
    #[error(
        "segment {index} at {start:#x} overlaps {LOW_RAM_END:#x}-{:#x}, which holds boot data; \
         link the guest at 0x100000 or above",
        BOOT_DATA.end
    )]
    OnBootData {
        /// Index of the program header.
        index: usize,
        /// Its physical address.
        start: u64,
    },
    /// Two segments want the same memory.
    #[error("segments {0} and {1} overlap in memory; check the guest's linker script")]
    Overlap(usize, usize),
    /// It has no PVH entry note.
    #[error(
        "it has no PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY), so it says not where to start; link \
         one in (Linux: CONFIG_PVH=y)"
    )]
    NoEntry,
    /// Its entry lies in no segment.
    #[error("its PVH entry {0:#x} lies in none of its segments")]
    EntryOutside(u64),
    /// `linux-loader` refused it.
    #[error("it cannot be loaded")]
    Load(#[source] linux_loader::loader::Error),
    /// A segment of an ELF32 file was not written.
    #[error("it cannot be written to guest memory")]
    Write(#[source] vm_memory::GuestMemoryError),
}

/// A guest image that has passed every check.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    /// The file, and the ELF file in it, which is the same unless it is a packed kernel.
    file: Arc<[u8]>,
    bytes: Arc<[u8]>,
    end: u64,
    entry: u64,
    is_linux: bool,
    /// If it is ELF32, its segments, which `linux-loader` does not load.
    segments: Option<Vec<Segment>>,
}

/// A segment to load.
#[derive(Debug)]
struct Segment {
    /// Where it goes.
    memory: Range<u64>,
    /// Where its contents are in the file. The rest of its memory is zero.
    contents: Range<usize>,
}

impl Image {
    /// Reads and checks the image at `path`.
    ///
    /// # Errors
    /// [`ImageError`] names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        Self::named(path, read(path))
    }

    /// Checks an image given as bytes. Errors call it `name`.
    ///
    /// # Errors
    /// As for a file.
    pub fn from_bytes(name: &Path, bytes: impl Into<Arc<[u8]>>) -> Result<Self, ImageError> {
        let bytes = bytes.into();
        Self::named(name, check_length(bytes.len()).map(|()| bytes))
    }

    fn named(name: &Path, bytes: Result<Arc<[u8]>, Problem>) -> Result<Self, ImageError> {
        bytes
            .and_then(|bytes| Self::check(name, bytes))
            .map_err(|problem| ImageError {
                path: name.to_owned(),
                problem,
            })
    }

    fn check(path: &Path, file: Arc<[u8]>) -> Result<Self, Problem> {
        let unpacked = kernel_file::unpack(&file, LARGEST)?;
        let bytes = unpacked.map_or_else(|| Arc::clone(&file), Arc::from);
        let (segments, Notes { entry, is_linux }, is_32) = match class(&bytes)? {
            ELFCLASS32 => {
                let programs = Programs::<FileHeader32<Endianness>>::parse(&bytes, EM_386)?;
                (programs.segments()?, programs.notes()?, true)
            }
            _ => {
                let programs = Programs::<FileHeader64<Endianness>>::parse(&bytes, EM_X86_64)?;
                (programs.segments()?, programs.notes()?, false)
            }
        };
        let ends = segments.iter().map(|segment| segment.memory.end);
        let end = ends.max().ok_or(Problem::NothingToLoad)?;
        let entry = entry.ok_or(Problem::NoEntry)?;
        let is_in = |segment: &Segment| segment.memory.contains(&entry);
        if !segments.iter().any(is_in) {
            return Err(Problem::EntryOutside(entry));
        }
        Ok(Self {
            path: path.to_owned(),
            end,
            entry,
            is_linux,
            file,
            bytes,
            segments: is_32.then_some(segments),
        })
    }

    /// First address after the image in guest-physical memory.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The path it was read from, or the name that its bytes were given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file as it was read.
    pub fn file(&self) -> &Arc<[u8]> {
        &self.file
    }

    /// The ELF file: what was read, or what is packed in it.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Where the first vCPU starts, as the PVH note says.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Whether it is a Linux kernel: its build system marks it so.
    pub fn is_linux(&self) -> bool {
        self.is_linux
    }

    /// Copies the segments into `memory`, which reaches at least to [`Image::end`].
    ///
    /// # Errors
    /// [`ImageError`] if `linux-loader` refuses the file after all.
    pub fn load(&self, memory: &GuestMemoryMmap) -> Result<(), ImageError> {
        let loaded = match &self.segments {
            None => Elf::load(memory, None, &mut Cursor::new(&self.bytes[..]), None)
                .map(drop)
                .map_err(Problem::Load),
            Some(segments) => segments.iter().try_for_each(|segment| {
                let contents = &self.bytes[segment.contents.clone()];
                memory
                    .write_slice(contents, GuestAddress(segment.memory.start))
                    .map_err(Problem::Write)
            }),
        };
        loaded.map_err(|problem| ImageError {
            path: self.path.clone(),
            problem,
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it is read, and only if it is a regular file"
)]
fn read(path: &Path) -> Result<Arc<[u8]>, Problem> {
    // Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
    let mut file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(Problem::Read)?;
    let kind = file.metadata().map_err(Problem::Read)?;
    if !kind.is_file() {
        return Err(Problem::NotAFile);
    }
    if kind.len() > LARGEST {
        return Err(Problem::TooLarge(kind.len()));
    }
    let length = usize::try_from(kind.len()).expect("checked above");
    check_length(length)?;
    // Where it stays, so that the largest part of a short run's set-up is not to copy it.
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
    let place = Arc::get_mut(&mut bytes).expect("just made");
    file.read_exact(place).map_err(Problem::Read)?;
    Ok(bytes)
}

fn check_length(length: usize) -> Result<(), Problem> {
    match length as u64 {
        0 => Err(Problem::Empty),
        length if length > LARGEST => Err(Problem::TooLarge(length)),
        _ => Ok(()),
    }
}

/// What the notes of an image say.
#[derive(Debug, Default)]
struct Notes {
    /// The address in the PVH note, if there is such a note.
    entry: Option<u64>,
    /// Whether it is a Linux kernel.
    is_linux: bool,
}

/// The class of an ELF file in which bytes are in the order of x86.
fn class(bytes: &[u8]) -> Result<FileClass, Problem> {
    if !bytes.starts_with(&ELFMAG) {
        return Err(Problem::NotElf);
    }
    let Some([class, order]) = bytes.get(4..6) else {
        return Err(Problem::Truncated("the ELF header", bytes.len() as u64));
    };
    match FileClass(*class) {
        _ if *order != ELFDATA2LSB.0 => Err(Problem::BigEndian),
        class @ (ELFCLASS32 | ELFCLASS64) => Ok(class),
        other => Err(Problem::Class(other.0)),
    }
}

/// The program headers of an ELF file, whose header is `H`.
struct Programs<'data, H: FileHeader<Endian = Endianness>> {
    bytes: &'data [u8],
    endian: Endianness,
    headers: &'data [H::ProgramHeader],
}

impl<'data, H: FileHeader<Endian = Endianness>> Programs<'data, H> {
    fn parse(bytes: &'data [u8], for_machine: Machine) -> Result<Self, Problem> {
        let truncated = |what| Problem::Truncated(what, bytes.len() as u64);
        let header: &H = bytes.read_at(0).map_err(|()| truncated("the ELF header"))?;
        let endian = header
            .endian()
            .map_err(|_| Problem::Damaged("unknown identification bytes"))?;
        let machine = header.e_machine(endian);
        if machine != for_machine {
            return Err(Problem::Machine {
                machine: machine.0,
                bits: if for_machine == EM_386 { 32 } else { 64 },
            });
        }
        match header.e_phoff(endian).into() {
            0 => return Err(Problem::NothingToLoad),
            offset if offset < size_of::<H>() as u64 => {
                return Err(Problem::Damaged(
                    "the program headers lie inside the ELF header",
                ));
            }
            _ => {}
        }
        if usize::from(header.e_phentsize(endian)) != size_of::<H::ProgramHeader>() {
            return Err(Problem::Damaged("program headers of an unknown size"));
        }
        let headers = header
            .program_headers(endian, bytes)
            .map_err(|_| truncated("the table of program headers"))?;
        for program in headers {
            let kind = program.p_type(endian);
            if kind == PT_LOAD || kind == PT_NOTE {
                let offset: u64 = program.p_offset(endian).into();
                offset
                    .checked_add(program.p_filesz(endian).into())
                    .filter(|end| *end <= bytes.len() as u64)
                    .ok_or_else(|| truncated("a segment"))?;
            }
        }
        Ok(Self {
            bytes,
            endian,
            headers,
        })
    }

    /// The loadable segments. Each lies within memory, and none overlaps another.
    fn segments(&self) -> Result<Vec<Segment>, Problem> {
        let endian = self.endian;
        let mut segments: Vec<(usize, Segment)> = Vec::new();
        for (index, program) in self.headers.iter().enumerate() {
            let size: u64 = program.p_memsz(endian).into();
            if program.p_type(endian) != PT_LOAD || size == 0 {
                continue;
            }
            let in_file: u64 = program.p_filesz(endian).into();
            if in_file > size {
                return Err(Problem::Damaged(
                    "a segment is larger in the file than in memory",
                ));
            }
            let start: u64 = program.p_paddr(endian).into();
            let end = start
                .checked_add(size)
                .filter(|end| *end <= GAP_START)
                .ok_or(Problem::Outside { index, start })?;
            if start < BOOT_DATA.end && end > LOW_RAM_END {
                return Err(Problem::OnBootData { index, start });
            }
            if let Some((other, _)) = segments
                .iter()
                .find(|(_, it)| start < it.memory.end && it.memory.start < end)
            {
                return Err(Problem::Overlap(*other, index));
            }
            // `parse` has checked that these bytes are in the file.
            let offset = usize::try_from(program.p_offset(endian).into()).unwrap_or(usize::MAX);
            let length = usize::try_from(in_file).unwrap_or(0);
            let segment = Segment {
                memory: start..end,
                contents: offset..offset.saturating_add(length),
            };
            segments.push((index, segment));
        }
        Ok(segments.into_iter().map(|(_, segment)| segment).collect())
    }

    /// What its notes say. `linux-loader` finds the PVH note only in the last of several note
    /// segments, and linkers do make several.
    fn notes(&self) -> Result<Notes, Problem> {
        const DAMAGED: Problem = Problem::Damaged("a note does not parse");
        let mut said = Notes::default();
        for program in self.headers {
            let Some(mut notes) = program
                .notes(self.endian, self.bytes)
                .map_err(|_| DAMAGED)?
            else {
                continue;
            };
            while let Some(note) = notes.next().map_err(|_| DAMAGED)? {
                if note.name() == b"Xen" && note.n_type(self.endian) == XEN_ELFNOTE_PHYS32_ENTRY {
                    let address = note.desc().first_chunk().ok_or(DAMAGED)?;
                    let address = u32::from_le_bytes(*address).into();
                    said.entry.get_or_insert(address);
                }
                // `include/linux/elfnote.h`.
                said.is_linux |= note.name() == b"Linux";
            }
        }
        Ok(said)
    }
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
