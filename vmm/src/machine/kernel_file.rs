//! Finds the ELF file in a kernel as distributions ship it: a bzImage has it compressed, behind a
//! boot sector and the code that would unpack it. Knows the format of the file (Linux,
//! `Documentation/arch/x86/boot.rst`), and nothing of ELF.
//!
//! The kernel is unpacked here and not by its own code in the guest: then it lies where it was linked
//! (no KASLR), its symbols are known, and it boots as every other PVH image does.

use std::io::{self, Read};

use flate2::read::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

/// `boot_flag`, the end of the boot sector.
const BOOT_FLAG: (usize, &[u8]) = (0x1fe, &[0x55, 0xaa]);
/// `header`.
const MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
const VERSION: usize = 0x206;
/// The first version of the boot protocol with a `payload_offset`.
const WITH_PAYLOAD: u16 = 0x208;
const SETUP_SECTORS: usize = 0x1f1;
/// Sectors of the setup code if the field is zero.
const SECTORS_BEFORE_ALL: usize = 4;
const SECTOR: usize = 512;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// Why there is no ELF file to be had from a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelFileError {
    /// It is older than Linux 2.6.26.
    #[error(
        "a Linux kernel whose boot protocol {}.{:02} does not say where its ELF file is; give the \
         vmlinux that it was built from",
        .0 >> 8, .0 & 0xff
    )]
    Old(u16),
    /// What it says of its payload is not so.
    #[error("a Linux kernel that is truncated: its payload lies beyond its end")]
    Truncated,
    /// An unknown compression.
    #[error(
        "a Linux kernel that is compressed with {0}, and gzip, xz and zstd are known here; unpack it \
         (scripts/extract-vmlinux in the kernel's tree), or give its vmlinux"
    )]
    Compression(&'static str),
    /// It cannot be unpacked.
    #[error("a Linux kernel that cannot be unpacked")]
    Unpack(#[source] io::Error),
    /// It is more than an image can be.
    #[error("a Linux kernel of more than {0} bytes when unpacked")]
    TooLarge(u64),
}

/// The ELF file in `file`, which has at most `largest` bytes; `None` if `file` is no bzImage.
///
/// # Errors
/// [`KernelFileError`] if it is one, and its ELF file cannot be had.
pub fn unpack(file: &[u8], largest: u64) -> Result<Option<Vec<u8>>, KernelFileError> {
    let has = |(at, bytes): (usize, &[u8])| file.get(at..at + bytes.len()) == Some(bytes);
    if !has(BOOT_FLAG) || !has(MAGIC) {
        return Ok(None);
    }
    let payload = payload(file)?;
    // A dictionary that is larger than all that is unpacked is of no use.
    let dictionary_kib = u32::try_from(largest >> 10).unwrap_or(u32::MAX);
    let reader: Box<dyn Read + '_> = match payload {
        [0x1f, 0x8b, ..] => Box::new(GzDecoder::new(payload)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            Box::new(XzReader::new_mem_limit(payload, false, dictionary_kib))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = StreamingDecoder::new_with_max_window_size(payload, largest);
            let decoder = decoder.map_err(io::Error::other);
            Box::new(decoder.map_err(KernelFileError::Unpack)?)
        }
        [0x5d, 0, 0, ..] => return Err(KernelFileError::Compression("lzma")),
        [b'B', b'Z', b'h', ..] => return Err(KernelFileError::Compression("bzip2")),
        [0x89, b'L', b'Z', b'O', ..] => return Err(KernelFileError::Compression("lzo")),
        [2, 0x21, 0x4c, 0x18, ..] => return Err(KernelFileError::Compression("lz4")),
        // Not compressed (CONFIG_KERNEL_UNCOMPRESSED).
        [0x7f, b'E', b'L', b'F', ..] => Box::new(payload),
        _ => return Err(KernelFileError::Compression("an unknown method")),
    };
    let mut unpacked = Vec::new();
    let read = reader.take(largest + 1).read_to_end(&mut unpacked);
    read.map_err(KernelFileError::Unpack)?;
    match unpacked.len() as u64 > largest {
        true => Err(KernelFileError::TooLarge(largest)),
        false => Ok(Some(unpacked)),
    }
}

/// The compressed ELF file. Four bytes behind it, in the payload, are its unpacked size.
fn payload(file: &[u8]) -> Result<&[u8], KernelFileError> {
    let bytes =
        |at: usize, length: usize| file.get(at..at + length).ok_or(KernelFileError::Truncated);
    let word = |at| -> Result<usize, KernelFileError> {
        let word = bytes(at, 4)?
            .first_chunk()
            .ok_or(KernelFileError::Truncated)?;
        usize::try_from(u32::from_le_bytes(*word)).map_err(|_| KernelFileError::Truncated)
    };
    let version = bytes(VERSION, 2)?
        .first_chunk()
        .ok_or(KernelFileError::Truncated)?;
    let version = u16::from_le_bytes(*version);
    if version < WITH_PAYLOAD {
        return Err(KernelFileError::Old(version));
    }
    let sectors = match bytes(SETUP_SECTORS, 1)? {
        [0] => SECTORS_BEFORE_ALL,
        sectors => usize::from(sectors[0]),
    };
    let start = (sectors + 1) * SECTOR + word(PAYLOAD_OFFSET)?;
    let end = start + word(PAYLOAD_LENGTH)?;
    file.get(start..end).ok_or(KernelFileError::Truncated)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const KERNEL: &[u8] = b"\x7fELF and the rest of it";

    /// A bzImage with this payload.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 2 * SECTOR];
        for (at, bytes) in [BOOT_FLAG, MAGIC] {
            file[at..at + bytes.len()].copy_from_slice(bytes);
        }
        file[SETUP_SECTORS] = 1;
        file[VERSION..][..2].copy_from_slice(&0x20f_u16.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap();
        file[PAYLOAD_LENGTH..][..4].copy_from_slice(&length.to_le_bytes());
        file.extend(payload);
        file
    }

    fn zipped() -> Vec<u8> {
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        zipped.write_all(KERNEL).unwrap();
        let mut payload = zipped.finish().unwrap();
        payload.extend((KERNEL.len() as u32).to_le_bytes());
        payload
    }

    #[test]
    fn the_kernel_is_found_in_its_file() {
        assert_eq!(unpack(&image(KERNEL), 100).unwrap().unwrap(), KERNEL);
        assert_eq!(unpack(&image(&zipped()), 100).unwrap().unwrap(), KERNEL);
        assert!(unpack(KERNEL, 100).unwrap().is_none());
        assert!(unpack(&[], 100).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_unpacked_is_named() {
        let why = |file: &[u8]| unpack(file, 20).unwrap_err().to_string();
        assert!(why(&image(KERNEL)).contains("more than 20 bytes"));
        assert!(why(&image(b"BZh9")).contains("compressed with bzip2"));
        assert!(why(&image(b"what")).contains("an unknown method"));
        let mut old = image(KERNEL);
        old[VERSION..][..2].copy_from_slice(&0x204_u16.to_le_bytes());
        assert!(why(&old).contains("boot protocol 2.04"), "{}", why(&old));
        let whole = image(&zipped());
        for length in SECTOR + 6..whole.len() {
            let _ = unpack(&whole[..length], 100);
        }
        assert!(why(&whole[..whole.len() - 1]).contains("truncated"));
    }
}
