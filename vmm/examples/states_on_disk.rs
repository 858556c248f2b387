//! Measures the table in which a search keeps its states, in memory and with a limit on memory:
//! `states_on_disk STATES LIMIT [FOLDER]`, such as `states_on_disk 10000000 100M`. The accesses are
//! those of `--strategy races`, without the machine: two of three steps lead to a new state, which is
//! changed once more when it is done; the third leads to any state that was seen. As in a search,
//! what is resident is looked at every 64 steps.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use vmm::explore::search::storage::{MemoryLimit, Storage, resident};
use vmm::explore::search::table::{Table, Value};
use vmm::size;
use xxhash_rust::xxh3::xxh3_128;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, native_endian};

/// Steps after which a state is done, in the middle of short and long ways.
const DONE_AFTER: u64 = 50;

/// What is kept for a state.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
struct Tag(native_endian::U32);

impl Value for Tag {
    fn is_none(&self) -> bool {
        self.0 == 0
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let states = arguments.next().and_then(|it| it.parse().ok());
    let limit = arguments.next().and_then(|it| size::parse(&it).ok());
    let (Some(states), Some(bytes)) = (states, limit) else {
        eprintln!("usage: states_on_disk STATES LIMIT [FOLDER]");
        return ExitCode::from(2);
    };
    let directory = arguments
        .next()
        .map_or_else(|| "/var/tmp".into(), PathBuf::from);
    println!(
        "{:>8}  {:>12}  {:>12}  {:>14}  {:>14}",
        "", "states", "steps/s", "most resident", "bytes/state"
    );
    let storages = [
        ("limit", Storage::new(MemoryLimit { bytes, directory })),
        ("none", Ok(Storage::default())),
    ];
    for (name, storage) in storages {
        let storage = match storage {
            Ok(storage) => Arc::new(storage),
            Err(error) => {
                eprintln!("no files can be made: {error}");
                return ExitCode::from(2);
            }
        };
        measure(name, &storage, states);
        if let Some(why) = storage.stop_reason() {
            eprintln!("{}", why.reason());
            return ExitCode::from(5);
        }
    }
    ExitCode::SUCCESS
}

/// Fills a table with so many states, and prints a line at each tenth of them.
fn measure(name: &str, storage: &Arc<Storage>, states: u64) {
    let table = Table::new(storage);
    let key = |state: u64| xxh3_128(&state.to_le_bytes());
    let tag = |number: u32| Tag(number.into());
    let before = resident();
    let (mut seen, mut most, mut chance) = (0_u64, before, 1_u64);
    let tenth = states.div_ceil(10);
    let (mut begun, mut steps) = (Instant::now(), 0_u64);
    while seen < states {
        steps += 1;
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        if seen == 0 || chance % 3 < 2 {
            table.update(key(seen), || tag(1), |_| ());
            seen += 1;
            if let Some(done) = seen.checked_sub(DONE_AFTER) {
                table.look(key(done), |it| *it = tag(2));
            }
            if seen.is_multiple_of(tenth) || seen == states {
                let rate = steps as f64 / begun.elapsed().as_secs_f64();
                let each = (resident().saturating_sub(before)) as f64 / seen as f64;
                println!(
                    "{name:>8}  {seen:>12}  {rate:>12.0}  {:>14}  {each:>14.1}",
                    size::words(most)
                );
                (begun, steps) = (Instant::now(), 0);
            }
        } else {
            let known = table.look(key(chance / 3 % seen), |it| it.0.get());
            assert!(known.is_some(), "what was seen stays so");
        }
        if steps.is_multiple_of(64) {
            storage.keep_within(&[]);
            most = most.max(resident());
        }
    }
}
