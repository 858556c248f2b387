//! Regions: arrays of plain values, either in memory or in a file that has no name and room on its
//! disk. A region of a file can be paged out: it then takes no memory, and comes back where it is
//! accessed. Says nothing of when.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use memmap2::{Advice, MmapMut, MmapOptions};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::mm::{self, madvise};
use rustix::process::{Resource, getrlimit};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A value that can lie in a region: any bytes are one.
pub trait Plain: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + Send + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + Send + 'static> Plain for T {}

/// Up to this size, a region of memory is on the heap. A mapping costs the kernel more than that, and
/// a short search has hundreds of small regions. A large one on the heap might leave a hole there.
const MOST_ON_HEAP: usize = 64 << 10;

/// An array of plain values. All bytes are 0 at first.
#[derive(Debug)]
pub struct Region<T>(Held<T>);

#[derive(Debug)]
enum Held<T> {
    OnHeap(Box<[T]>),
    Mapped(MmapMut),
}

impl<T: Plain> Region<T> {
    /// A region of memory.
    ///
    /// # Errors
    /// If the host has no room for it.
    pub fn in_memory(values: usize) -> io::Result<Self> {
        let bytes = bytes::<T>(values)?;
        Ok(Self(if bytes <= MOST_ON_HEAP {
            Held::OnHeap(vec![T::new_zeroed(); values].into())
        } else {
            Held::Mapped(MmapMut::map_anon(bytes)?)
        }))
    }

    /// A region of a new file in `directory`.
    ///
    /// # Errors
    /// If the file cannot be made, or its disk has no room for it.
    pub fn in_file(values: usize, directory: &Path) -> io::Result<Self> {
        let bytes = bytes::<T>(values)?;
        let file = tempfile::tempfile_in(directory)?;
        reserve(&file, bytes as u64)?;
        // SAFETY: Nobody else has this file: it has no name, and is closed when this function
        // returns. So nothing but this mapping accesses its bytes, and nobody makes it shorter.
        let map = unsafe { MmapOptions::new().len(bytes).map_mut(&file) }?;
        // What is near a value is not needed next. A kernel that does not know this reads more.
        let _ = map.advise(Advice::Random);
        Ok(Self(Held::Mapped(map)))
    }

    /// The values.
    pub fn values(&self) -> &[T] {
        match &self.0 {
            Held::OnHeap(values) => values,
            Held::Mapped(map) => <[T]>::ref_from_bytes(map).expect(WHOLE),
        }
    }

    /// The values, to change them.
    pub fn values_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Held::OnHeap(values) => values,
            Held::Mapped(map) => <[T]>::mut_from_bytes(map).expect(WHOLE),
        }
    }

    /// Pages it out. Has no effect on a region of memory on a host without swap.
    pub fn page_out(&self) {
        let Held::Mapped(map) = &self.0 else {
            return;
        };
        let (begin, bytes) = (map.as_ptr(), map.len());
        // SAFETY: The kernel keeps what is in the pages, and brings it back where it is accessed. The
        // pages are those of this mapping, as it has a length of its own.
        let done = unsafe { madvise(begin.cast_mut().cast(), bytes, mm::Advice::LinuxPageOut) };
        // A kernel that cannot (before 5.4) leaves it where it is, which shows in what is resident.
        let _ = done;
    }
}

/// Why a mapping is an array.
const WHOLE: &str = "it has the size of whole values";

fn bytes<T>(values: usize) -> io::Result<usize> {
    let bytes = values.checked_mul(size_of::<T>());
    bytes.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

/// Has the disk set aside `bytes` for `file`. Without that, a page for which there turns out to be no
/// room would end the process (SIGBUS) once it is written.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    // To exceed this limit would end the process too (SIGXFSZ).
    if getrlimit(Resource::Fsize)
        .current
        .is_some_and(|most| bytes > most)
    {
        return Err(Errno::FBIG.into());
    }
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        // What is written has room.
        Err(Errno::OPNOTSUPP) => {
            let mut file = file;
            io::copy(&mut io::repeat(0).take(bytes), &mut file)?;
            file.flush()
        }
        reserved => Ok(reserved?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paged_out_comes_back() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        for mut region in [
            Region::in_memory(100).unwrap(),
            Region::in_memory(100_000).unwrap(),
            Region::in_file(100_000, directory.path()).unwrap(),
        ] {
            assert!(region.values().iter().all(|value| *value == 0));
            for (value, number) in region.values_mut().iter_mut().zip(1_u64..) {
                *value = number;
            }
            region.page_out();
            let end = 1 + region.values().len() as u64;
            assert!(region.values().iter().copied().eq(1..end));
        }
        let left = directory.path().read_dir().unwrap().count();
        assert_eq!(left, 0, "the file has no name");
    }

    #[test]
    fn a_directory_that_is_not_there_and_a_size_that_cannot_be_are_errors() {
        let nowhere = Region::<u64>::in_file(1, Path::new("/var/tmp/not/there"));
        assert_eq!(nowhere.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(Region::<u64>::in_memory(usize::MAX / 4).is_err());
        assert!(Region::<u64>::in_file(1 << 60, Path::new("/var/tmp")).is_err());
    }
}
