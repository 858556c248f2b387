//! KVM's binary statistics, as `KVM_GET_STATS_FD` gives them: a description that names every field,
//! read once, and an array of numbers, read with one call per sample. No field is known by name
//! here.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use kvm_bindings::{
    KVM_STATS_TYPE_CUMULATIVE, KVM_STATS_TYPE_LINEAR_HIST, KVM_STATS_TYPE_LOG_HIST,
    KVM_STATS_TYPE_MASK, KVMIO,
};
use vmm_sys_util::ioctl::{_IOC_NONE, ioctl, ioctl_expr};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Number of the ioctl `KVM_GET_STATS_FD`, which `kvm-ioctls` does not have.
const GET_STATS_FD: u32 = 0xce;
/// Limits that are more than any kernel needs, and small enough to read.
const MOST_FIELDS: u32 = 4096;
const LONGEST_NAME: u32 = 256;
const MOST_BYTES: u64 = 1 << 20;

/// Why KVM's statistics cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The host's KVM has no binary statistics.
    #[error("this host's KVM has no binary statistics")]
    Unsupported(#[source] io::Error),
    /// The file cannot be read.
    #[error("cannot read KVM's binary statistics")]
    Read(#[source] io::Error),
    /// The description of the fields makes no sense.
    #[error("KVM's description of its statistics is damaged: {0}")]
    Damaged(&'static str),
}

#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawHeader {
    flags: u32,
    name_size: u32,
    count: u32,
    id_offset: u32,
    descriptors: u32,
    data: u32,
}

#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawField {
    flags: u32,
    exponent: i16,
    size: u16,
    offset: u32,
    bucket_size: u32,
}

/// One statistic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// KVM's name for it.
    pub name: String,
    /// Whether it only grows, so that the difference of two samples means something. Momentary
    /// values, maxima and flags do not.
    pub grows: bool,
    /// Index of its first number in a sample.
    start: usize,
    /// How many numbers it has; a histogram has one per bucket.
    len: usize,
}

impl Field {
    /// Its numbers in `sample`.
    pub fn of<'a>(&self, sample: &'a [u64]) -> &'a [u64] {
        sample
            .get(self.start..self.start + self.len)
            .unwrap_or_default()
    }
}

/// The description of all statistics of one kind of object.
#[derive(Debug, PartialEq, Eq)]
pub struct Schema {
    /// The statistics, in KVM's order.
    pub fields: Vec<Field>,
    data: u64,
    words: usize,
}

impl Schema {
    /// Parses the description, reading it through `read_at(offset, bytes)`.
    ///
    /// # Errors
    /// [`StatsError`] if it cannot be read, or makes no sense.
    pub fn read(read_at: impl Fn(u64, &mut [u8]) -> io::Result<()>) -> Result<Self, StatsError> {
        let read = |offset: u32, length: u64| {
            if length > MOST_BYTES {
                return Err(StatsError::Damaged("too long"));
            }
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
            read_at(offset.into(), &mut bytes).map_err(StatsError::Read)?;
            Ok(bytes)
        };
        let header = read(0, size_of::<RawHeader>() as u64)?;
        let header =
            RawHeader::read_from_bytes(&header).map_err(|_| StatsError::Damaged("no header"))?;
        if header.count > MOST_FIELDS || header.name_size > LONGEST_NAME {
            return Err(StatsError::Damaged(
                "an impossible number or length of names",
            ));
        }
        let stride = size_of::<RawField>() + header.name_size as usize;
        let bytes = read(header.descriptors, u64::from(header.count) * stride as u64)?;
        let fields = bytes
            .chunks_exact(stride)
            .map(field)
            .collect::<Result<Vec<_>, _>>()?;
        let words = fields
            .iter()
            .map(|field| field.start + field.len)
            .max()
            .unwrap_or(0);
        if words as u64 * 8 > MOST_BYTES {
            return Err(StatsError::Damaged("too many numbers"));
        }
        Ok(Self {
            fields,
            data: header.data.into(),
            words,
        })
    }

    /// The field called `name`.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

fn field(bytes: &[u8]) -> Result<Field, StatsError> {
    let (raw, name) =
        RawField::read_from_prefix(bytes).map_err(|_| StatsError::Damaged("a short field"))?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let kind = raw.flags & KVM_STATS_TYPE_MASK;
    Ok(Field {
        name: String::from_utf8_lossy(name).into_owned(),
        grows: matches!(
            kind,
            KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_TYPE_LINEAR_HIST | KVM_STATS_TYPE_LOG_HIST
        ),
        start: raw.offset as usize / 8,
        len: usize::from(raw.size),
    })
}

/// The statistics of one VM or vCPU.
#[derive(Debug)]
pub struct StatsFile {
    file: File,
    schema: Arc<Schema>,
}

impl StatsFile {
    /// Opens the statistics of `object`. The description is the same for all objects of a kind: it
    /// is taken from `like` if that is given.
    ///
    /// # Errors
    /// [`StatsError::Unsupported`] on hosts whose KVM has none.
    pub fn open(object: &impl AsRawFd, like: Option<&Self>) -> Result<Self, StatsError> {
        // SAFETY: `object` is an open KVM file; this ioctl takes no argument and touches no memory.
        let fd = unsafe { ioctl(object, ioctl_expr(_IOC_NONE, KVMIO, GET_STATS_FD, 0)) };
        if fd < 0 {
            return Err(StatsError::Unsupported(io::Error::last_os_error()));
        }
        // SAFETY: KVM has just created this file descriptor for this call, and nothing else owns
        // it.
        let file = unsafe { File::from_raw_fd(fd) };
        let schema = match like {
            Some(other) => Arc::clone(&other.schema),
            None => Arc::new(Schema::read(|offset, bytes| {
                file.read_exact_at(bytes, offset)
            })?),
        };
        Ok(Self { file, schema })
    }

    /// The description of a sample's numbers.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// All numbers as they stand now.
    ///
    /// # Errors
    /// [`StatsError::Read`] if KVM does not give them.
    pub fn sample(&self) -> Result<Vec<u64>, StatsError> {
        let mut words = vec![0_u64; self.schema.words];
        let bytes = zerocopy::IntoBytes::as_mut_bytes(words.as_mut_slice());
        self.file
            .read_exact_at(bytes, self.schema.data)
            .map_err(StatsError::Read)?;
        Ok(words)
    }
}

#[cfg(test)]
#[path = "binary_test.rs"]
mod tests;
