//! The file in which a search is kept, so that another process can go on with it after this one was
//! stopped or killed: whose search it is, the search, and a hash of both. Knows nothing of what a
//! search keeps.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::warn;
use xxhash_rust::xxh3::Xxh3;

use super::data_races::DataRaces;
use super::key::to_hex;
use super::memory::Memory;
use super::schedule::Granularity;
use super::search::checkpoint::{Checkpoint, Keeper, read_value, write_value};
use super::shard::Shard;
use super::strategy::Strategy;
use crate::control_characters::spell_out_path;
use crate::whole_file::WholeFile;

/// How the file begins: its form, and the version of that.
const FORM: &[u8] = b"ipi-lab-checkpoint-1\n";

/// The file ends with a hash of everything before, of so many bytes.
const HASH: u64 = 16;

/// A search pauses for at most this part of its time: after one that took long to write, the next
/// checkpoint comes later.
const GREATEST_SHARE: u32 = 20;

/// Where checkpoints go, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    /// The file. If it exists, the search goes on from there.
    pub file: PathBuf,
    /// The time between two of them.
    pub every: Duration,
}

/// Whose search it is: everything that decides about its states and their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// The hash of the program that searches: another one may have other states.
    pub(super) program: String,
    /// The hash of the image.
    pub(super) image: String,
    /// The hash of the initial state.
    pub(super) begins: String,
    /// The case, as it is written.
    pub(super) case: String,
    /// The other words for the guest.
    pub(super) append: String,
    pub(super) granularity: Granularity,
    pub(super) memory: Memory,
    pub(super) strategy: Strategy,
    pub(super) shard: Shard,
    pub(super) keep_going: bool,
    pub(super) witness: bool,
    pub(super) data_races: DataRaces,
}

/// A hash of the program that runs.
///
/// # Errors
/// If it cannot be read.
#[expect(clippy::disallowed_methods, reason = "it is no pipe")]
pub(super) fn program() -> io::Result<String> {
    let mut hashing = Hashing {
        inner: io::sink(),
        hash: Xxh3::new(),
    };
    // The name of the file can have become that of another one.
    io::copy(&mut File::open("/proc/self/exe")?, &mut hashing)?;
    Ok(to_hex(hashing.hash.digest128()))
}

impl Identity {
    /// In what `other` differs, in words; `None` if in nothing.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let differs = [
            (self.case != other.case, "another case"),
            (
                self.append != other.append,
                "other words for the guest (--append)",
            ),
            (self.image != other.image, "another guest image"),
            (
                self.granularity != other.granularity,
                "another --granularity",
            ),
            (self.memory != other.memory, "another --memory"),
            (self.strategy != other.strategy, "another --strategy"),
            (self.shard != other.shard, "another --shard"),
            (self.keep_going != other.keep_going, "another --keep-going"),
            (self.data_races != other.data_races, "another --data-races"),
            (self.witness != other.witness, "another --witness"),
            (self.program != other.program, "another build of vmm"),
            (
                self.begins != other.begins,
                "another initial state, perhaps of another host",
            ),
        ];
        let mut differs = differs.into_iter().filter(|(differs, _)| *differs);
        differs.next().map(|(_, what)| what)
    }
}

/// Why a checkpoint is of no use.
#[derive(Debug, thiserror::Error)]
#[error("--checkpoint {}: {why}", spell_out_path(file))]
pub struct CheckpointError {
    /// The file.
    file: PathBuf,
    /// What is wrong with it.
    #[source]
    why: Wrong,
}

/// What is wrong with the file of a checkpoint.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("{0}")]
    Io(#[source] io::Error),
    #[error(
        "the file exists, and is no checkpoint of this version; it stays as it is: name another one"
    )]
    NoCheckpoint,
    #[error("the file is damaged, so that no search can go on from there; remove it to begin anew")]
    Damaged,
    #[error("the file is of a search with {0}; name another file, or remove it to begin anew")]
    OtherSearch(&'static str),
}

impl CheckpointError {
    /// That the file cannot be read or written.
    pub(super) fn io(file: &Path, error: io::Error) -> Self {
        Wrong::Io(error).of(file)
    }
}

impl Wrong {
    fn of(self, file: &Path) -> CheckpointError {
        CheckpointError {
            file: file.to_owned(),
            why: self,
        }
    }
}

/// The file of the checkpoints of a search.
#[derive(Debug)]
pub(super) struct CheckpointFile {
    wanted: Checkpoints,
    identity: Identity,
    due: Instant,
    /// Why the last checkpoint could not be written, if it could not.
    pub(super) failed: Option<String>,
}

/// Checks, before a search begins, that its checkpoints can be written as far as that can be told,
/// and that a file that exists is a checkpoint.
///
/// # Errors
/// [`CheckpointError`] if not.
pub fn check(file: &Path) -> Result<(), CheckpointError> {
    let error = |error| CheckpointError::io(file, error);
    if let Some(mut existing) = open(file)? {
        let mut begins = vec![0; FORM.len()];
        if existing.read_exact(&mut begins).is_err() || begins != FORM {
            return Err(Wrong::NoCheckpoint.of(file));
        }
    }
    WholeFile::create(file).map(drop).map_err(error)
}

/// Removes the file of a search that is through, if it exists.
///
/// # Errors
/// If it cannot be removed.
pub fn remove(file: &Path) -> io::Result<()> {
    let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match fs::remove_file(file) {
        Err(error) if !is_missing(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Opens the file, if it exists.
#[expect(clippy::disallowed_methods, reason = "only a regular file is opened")]
fn open(file: &Path) -> Result<Option<File>, CheckpointError> {
    let error = |error| CheckpointError::io(file, error);
    match fs::metadata(file) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(other) => Err(error(other)),
        // A pipe is not opened: that would wait for whoever writes to it.
        Ok(found) if !found.is_file() => Err(Wrong::NoCheckpoint.of(file)),
        Ok(_) => File::open(file).map(Some).map_err(error),
    }
}

impl CheckpointFile {
    /// The file of the search with this `identity`, and that search, if it was kept there.
    ///
    /// # Errors
    /// [`CheckpointError`] if what is there is of no use.
    pub(super) fn open(
        wanted: &Checkpoints,
        identity: Identity,
    ) -> Result<(Self, Option<Checkpoint>), CheckpointError> {
        let kept = match open(&wanted.file)? {
            Some(file) => Some(read(file, &wanted.file, &identity)?),
            None => None,
        };
        let now = Instant::now();
        let file = Self {
            wanted: wanted.clone(),
            identity,
            due: now.checked_add(wanted.every).unwrap_or(now),
            failed: None,
        };
        Ok((file, kept))
    }

    fn write(&self, body: &dyn Fn(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        WholeFile::create(&self.wanted.file)?.write(|out| {
            let mut to = Hashing {
                inner: out,
                hash: Xxh3::new(),
            };
            to.write_all(FORM)?;
            write_value(&mut to, &self.identity)?;
            body(&mut to)?;
            let hash = to.hash.digest128().to_le_bytes();
            to.inner.write_all(&hash)
        })
    }
}

/// Reads the search in `file`, which is called `name`, if it is the one with this `identity`.
fn read(file: File, name: &Path, identity: &Identity) -> Result<Checkpoint, CheckpointError> {
    let (of, kept) = read_any(file, name)?;
    match identity.difference(&of) {
        Some(what) => Err(Wrong::OtherSearch(what).of(name)),
        None => kept.map_err(|_| Wrong::Damaged.of(name)),
    }
}

/// The case of the search that is kept in the file at `path`, as it is written.
///
/// # Errors
/// [`CheckpointError`] if there is no file, or it is no checkpoint that this program can read.
pub fn kept_case(path: &Path) -> Result<String, CheckpointError> {
    let file = open(path)?.ok_or_else(|| Wrong::NoCheckpoint.of(path))?;
    let (of, kept) = read_any(file, path)?;
    match kept {
        Ok(_) => Ok(of.case),
        Err(_) => Err(Wrong::Damaged.of(path)),
    }
}

/// Reads whose search is in `file`, which is called `name`, and the search. Another search may be one
/// of another program, which cannot be read.
fn read_any(
    mut file: File,
    name: &Path,
) -> Result<(Identity, io::Result<Checkpoint>), CheckpointError> {
    let error = |error| CheckpointError::io(name, error);
    let damaged = |_| Wrong::Damaged.of(name);
    let length = file.metadata().map_err(error)?.len();
    let begins = FORM.len() as u64;
    let Some(body) = length.checked_sub(HASH).filter(|body| *body > begins) else {
        return Err(Wrong::Damaged.of(name));
    };
    let mut hashing = Hashing {
        inner: io::sink(),
        hash: Xxh3::new(),
    };
    let mut from = BufReader::with_capacity(1 << 20, &mut file);
    io::copy(&mut from.by_ref().take(body), &mut hashing).map_err(error)?;
    let mut hash = [0; HASH as usize];
    from.read_exact(&mut hash).map_err(error)?;
    if hash != hashing.hash.digest128().to_le_bytes() {
        return Err(Wrong::Damaged.of(name));
    }
    file.seek(SeekFrom::Start(begins)).map_err(error)?;
    let mut from = BufReader::new(file.take(body - begins));
    let of: Identity = read_value(&mut from).map_err(damaged)?;
    Ok((of, Checkpoint::read(Box::new(from))))
}

impl Keeper for CheckpointFile {
    fn due(&self) -> Instant {
        self.due
    }

    fn keep(&mut self, body: &dyn Fn(&mut dyn Write) -> io::Result<()>) {
        let begun = Instant::now();
        let name = spell_out_path(&self.wanted.file);
        self.failed = match self.write(body) {
            Ok(()) => None,
            Err(error) => {
                warn!("cannot write the checkpoint {name}: {error}");
                Some(format!("cannot write the checkpoint {name}: {error}"))
            }
        };
        let now = Instant::now();
        let least = (now - begun).saturating_mul(GREATEST_SHARE);
        self.due = now.checked_add(self.wanted.every.max(least)).unwrap_or(now);
    }
}

/// Passes on what is written, and computes its hash.
struct Hashing<W> {
    inner: W,
    hash: Xxh3,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
