//! Makes small guest images: machine code in an ELF64 file with a PVH note, or with something wrong.

/// Where the code goes, and starts.
pub const CODE: u64 = 0x10_0000;

const HEADER: usize = 64;
const PROGRAM: usize = 56;

/// A program header to be.
#[derive(Clone, Debug)]
pub struct Segment {
    pub kind: u32,
    pub address: u64,
    pub bytes: Vec<u8>,
    pub memory: u64,
}

impl Segment {
    /// A loadable segment that is as large in memory as in the file.
    pub fn load(address: u64, bytes: &[u8]) -> Self {
        Self {
            kind: 1,
            address,
            bytes: bytes.to_vec(),
            memory: bytes.len() as u64,
        }
    }

    /// A note segment with one note.
    pub fn note(name: &[u8], kind: u32, description: &[u8]) -> Self {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let mut bytes = Vec::new();
        bytes.extend(length(name));
        bytes.extend(length(description));
        bytes.extend(kind.to_le_bytes());
        for part in [name, description] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        Self {
            kind: 4,
            address: 0,
            memory: bytes.len() as u64,
            bytes,
        }
    }

    /// The note that says where a PVH guest starts.
    pub fn pvh(entry: u32) -> Self {
        Self::note(b"Xen\0", 18, &entry.to_le_bytes())
    }
}

/// An ELF64 file for x86-64 with these segments.
pub fn elf(segments: &[Segment]) -> Vec<u8> {
    let mut bytes = vec![0_u8; HEADER];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    put(&mut bytes, 16, &2_u16.to_le_bytes());
    put(&mut bytes, 18, &62_u16.to_le_bytes());
    put(&mut bytes, 20, &1_u32.to_le_bytes());
    put(&mut bytes, 24, &CODE.to_le_bytes());
    put(&mut bytes, 32, &(HEADER as u64).to_le_bytes());
    put(
        &mut bytes,
        52,
        &u16::try_from(HEADER).unwrap().to_le_bytes(),
    );
    put(
        &mut bytes,
        54,
        &u16::try_from(PROGRAM).unwrap().to_le_bytes(),
    );
    put(
        &mut bytes,
        56,
        &u16::try_from(segments.len()).unwrap().to_le_bytes(),
    );
    let mut offset = HEADER + segments.len() * PROGRAM;
    for segment in segments {
        bytes.extend(segment.kind.to_le_bytes());
        bytes.extend(7_u32.to_le_bytes());
        let size = segment.bytes.len() as u64;
        for word in [
            offset as u64,
            segment.address,
            segment.address,
            size,
            segment.memory,
            4,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        offset += segment.bytes.len();
    }
    for segment in segments {
        bytes.extend(&segment.bytes);
    }
    bytes
}

/// A bootable guest that executes `code`, which starts in 32-bit protected mode.
pub fn guest(code: &[u8]) -> Vec<u8> {
    elf(&[
        Segment::load(CODE, code),
        Segment::pvh(u32::try_from(CODE).unwrap()),
    ])
}

/// Overwrites some bytes.
pub fn put(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..at + with.len()].copy_from_slice(with);
}
