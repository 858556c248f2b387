//! The guest image: read, checked, and copied into memory. Everything that can be wrong with an
//! image is found here, before there is a machine, and reported with the name of the image.
//! `linux-loader` copies the segments and trusts much of what is checked here.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux_loader::loader::{Elf, KernelLoader};
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, FileHeader64, NoteType, PT_LOAD, PT_NOTE,
    ProgramHeader64,
};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadRef};
use vm_memory::GuestMemoryMmap;

use super::layout::{BOOT_DATA, GAP_START, LOW_RAM_END};

/// Largest image in bytes. No unikernel comes near this; a disk image that was given by mistake
/// does.
const LARGEST: u64 = 256 << 20;
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);

/// Why an image cannot be the guest.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .path.display())]
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
    /// It is for a 32-bit machine.
    #[error("a 32-bit ELF file; the guest must be ELF64 for x86-64")]
    Not64,
    /// Its bytes are in the wrong order.
    #[error("a big-endian ELF file; the guest must be ELF64 for x86-64")]
    BigEndian,
    /// It is for another processor.
    #[error("an ELF file for machine type {0}; the guest must be for x86-64 (62)")]
    Machine(u16),
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
         one in"
    )]
    NoEntry,
    /// Its entry lies in no segment.
    #[error("its PVH entry {0:#x} lies in none of its segments")]
    EntryOutside(u64),
    /// `linux-loader` refused it.
    #[error("it cannot be loaded")]
    Load(#[source] linux_loader::loader::Error),
}

/// A guest image that has passed every check.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    bytes: Arc<[u8]>,
    end: u64,
    entry: u64,
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

    fn check(path: &Path, bytes: Arc<[u8]>) -> Result<Self, Problem> {
        let programs = Programs::parse(&bytes)?;
        let segments = programs.segments()?;
        let end = segments
            .iter()
            .map(|segment| segment.end)
            .max()
            .ok_or(Problem::NothingToLoad)?;
        let entry = programs.entry()?.ok_or(Problem::NoEntry)?;
        if !segments.iter().any(|segment| segment.contains(&entry)) {
            return Err(Problem::EntryOutside(entry));
        }
        Ok(Self {
            path: path.to_owned(),
            end,
            entry,
            bytes,
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

    /// The image as it was read.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Where the first vCPU starts, as the PVH note says.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Copies the segments into `memory`, which reaches at least to [`Image::end`].
    ///
    /// # Errors
    /// [`ImageError`] if `linux-loader` refuses the file after all.
    pub fn load(&self, memory: &GuestMemoryMmap) -> Result<(), ImageError> {
        Elf::load(memory, None, &mut Cursor::new(&self.bytes[..]), None)
            .map(drop)
            .map_err(|error| ImageError {
                path: self.path.clone(),
                problem: Problem::Load(error),
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

/// The program headers of a file that is ELF64 for x86-64.
struct Programs<'data> {
    bytes: &'data [u8],
    endian: Endianness,
    headers: &'data [ProgramHeader64<Endianness>],
}

impl<'data> Programs<'data> {
    fn parse(bytes: &'data [u8]) -> Result<Self, Problem> {
        let truncated = |what| Problem::Truncated(what, bytes.len() as u64);
        if !bytes.starts_with(&ELFMAG) {
            return Err(Problem::NotElf);
        }
        match bytes.get(4..6) {
            None => return Err(truncated("the ELF header")),
            Some([class, _]) if *class != ELFCLASS64.0 => return Err(Problem::Not64),
            Some([_, order]) if *order != ELFDATA2LSB.0 => return Err(Problem::BigEndian),
            Some(_) => {}
        }
        let header: &FileHeader64<Endianness> =
            bytes.read_at(0).map_err(|()| truncated("the ELF header"))?;
        let endian = header
            .endian()
            .map_err(|_| Problem::Damaged("unknown identification bytes"))?;
        let machine = header.e_machine(endian);
        if machine != EM_X86_64 {
            return Err(Problem::Machine(machine.0));
        }
        match header.e_phoff(endian) {
            0 => return Err(Problem::NothingToLoad),
            offset if offset < size_of::<FileHeader64<Endianness>>() as u64 => {
                return Err(Problem::Damaged(
                    "the program headers lie inside the ELF header",
                ));
            }
            _ => {}
        }
        if usize::from(header.e_phentsize(endian)) != size_of::<ProgramHeader64<Endianness>>() {
            return Err(Problem::Damaged("program headers of an unknown size"));
        }
        let headers = header
            .program_headers(endian, bytes)
            .map_err(|_| truncated("the table of program headers"))?;
        for program in headers {
            let kind = program.p_type(endian);
            if kind == PT_LOAD || kind == PT_NOTE {
                program
                    .p_offset(endian)
                    .checked_add(program.p_filesz(endian))
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

    /// The memory of each loadable segment. Each lies within memory, and none overlaps another.
    fn segments(&self) -> Result<Vec<Range<u64>>, Problem> {
        let endian = self.endian;
        let mut segments: Vec<(usize, Range<u64>)> = Vec::new();
        for (index, program) in self.headers.iter().enumerate() {
            if program.p_type(endian) != PT_LOAD || program.p_memsz(endian) == 0 {
                continue;
            }
            if program.p_filesz(endian) > program.p_memsz(endian) {
                return Err(Problem::Damaged(
                    "a segment is larger in the file than in memory",
                ));
            }
            let start = program.p_paddr(endian);
            let end = start
                .checked_add(program.p_memsz(endian))
                .filter(|end| *end <= GAP_START)
                .ok_or(Problem::Outside { index, start })?;
            if start < BOOT_DATA.end && end > LOW_RAM_END {
                return Err(Problem::OnBootData { index, start });
            }
            if let Some((other, _)) = segments
                .iter()
                .find(|(_, other)| start < other.end && other.start < end)
            {
                return Err(Problem::Overlap(*other, index));
            }
            segments.push((index, start..end));
        }
        Ok(segments.into_iter().map(|(_, range)| range).collect())
    }

    /// The address in the PVH note, if there is such a note. `linux-loader` finds it only in the
    /// last of several note segments, and linkers do make several.
    fn entry(&self) -> Result<Option<u64>, Problem> {
        const DAMAGED: Problem = Problem::Damaged("a note does not parse");
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
                    return Ok(Some(u32::from_le_bytes(*address).into()));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
