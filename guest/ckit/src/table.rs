//! What the C files of an image have that the runtime calls or writes: one table, which the macros
//! of `lab.h` fill and the linker puts together. Only this module turns entries of the table into
//! references and functions.

use core::ffi::CStr;

use kit::counters::CpuCounters;
use kit::manifest::{CounterRole, PROGRESS, Record};
use kit::platform::Vector;

/// The vectors that C files can have.
pub const VECTORS: [Vector; 8] = [
    Vector::new(0xf2),
    Vector::new(0xf3),
    Vector::new(0xf4),
    Vector::new(0xf5),
    Vector::new(0xf6),
    Vector::new(0xf7),
    Vector::new(0xf8),
    Vector::new(0xf9),
];

/// How often the handler of such a vector was entered. The kit counts it; a record of C could not
/// name the counter, since what a vector is called can be no name of a counter.
macro_rules! declare_received {
    ($($at:literal $name:literal $vector:literal)+) => {
        kit::declare! {
            $(Record::counter(
                CpuCounters::number_of_received(VECTORS[$at]),
                concat!($name, "_received"),
                concat!("Times the handler of vector ", $vector, " was entered."),
            )
            .reckoned(CounterRole::Received)
            .with(PROGRESS),)+
        }
    };
}

declare_received! {
    0 "f2" "0xf2"
    1 "f3" "0xf3"
    2 "f4" "0xf4"
    3 "f5" "0xf5"
    4 "f6" "0xf6"
    5 "f7" "0xf7"
    6 "f8" "0xf8"
    7 "f9" "0xf9"
}

/// What a deed is told, as `struct lab_command`.
#[derive(Debug)]
#[repr(C)]
pub struct CCommand {
    /// Arguments but for sets of CPUs, by position.
    pub arguments: [u64; 4],
    /// The CPUs, 64 to a word.
    pub cpus: [u64; 16],
    /// Whether the CPU is to wait until it has been done everywhere.
    pub waits: u32,
    /// The number of the program that goes with it, or 0.
    pub program: u32,
}

/// The text of C at `at`.
///
/// # Safety
/// There must be one, which is never written.
pub unsafe fn text(at: *const u8) -> &'static str {
    // SAFETY: by the caller's promise.
    let text = unsafe { CStr::from_ptr(at.cast()) };
    text.to_str().unwrap_or("(a text that is no UTF-8)")
}

/// One entry, as `struct lab_entry`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct RawEntry {
    kind: u64,
    number: u64,
    first: *const u8,
    second: *const u8,
}

// SAFETY: the table is not written once it is linked, and what it points to is a function, a text,
// or a word that only the first CPU writes, before all others run.
unsafe impl Sync for RawEntry {}

/// One entry.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// The function of the deed with this verb.
    Deed(u32, extern "C" fn(*const CCommand) -> i64),
    /// The handler of this vector.
    Handler(u8, extern "C" fn()),
    /// A key of the command line, and the workloads in which it decides something.
    Word(&'static str, Chosen, Workloads),
    /// The value of a key, its number, and whether it is broken on purpose.
    Value(&'static str, &'static str, u32, bool),
    /// A function that looks for what was left behind.
    Judge(extern "C" fn()),
    /// How CPUs leave and come.
    Hotplug(&'static CHotplug),
    /// What each CPU does by itself in the workload with this number, and when that is over.
    Workload(u32, Work),
    /// A key whose value is a number, what it counts, and the workloads in which it decides
    /// something.
    Number(&'static str, Chosen64, Unit, Workloads),
    /// What chooses the numbers that the command line does not say.
    Defaults(Defaults),
}

/// How CPUs leave and come, as `struct lab_hotplug`.
#[derive(Debug)]
#[repr(C)]
pub struct CHotplug {
    /// This CPU has started, with interrupts off.
    pub starts: extern "C" fn(),
    /// Whether this CPU has gone offline, at a point between two commands.
    pub between: extern "C" fn() -> bool,
    /// Whether it has something to do there.
    pub is_wanted: extern "C" fn() -> bool,
    /// The CPUs that are online: this word of the set.
    pub online: extern "C" fn(u32) -> u64,
}

/// What each CPU does by itself in a workload.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The function that each calls once.
    pub part: extern "C" fn(),
    /// Whether the run is over as soon as CPU 0 has returned from it, whatever the others do.
    pub ends_with_the_first: bool,
}

/// A function that chooses, for so many CPUs, what the command line does not say, or returns what is
/// wrong with it.
#[derive(Clone, Copy, Debug)]
pub struct Defaults(extern "C" fn(u32) -> *const u8);

impl Defaults {
    /// Calls it.
    ///
    /// # Errors
    /// What it returns.
    pub fn choose(self, cpus: usize) -> Result<(), &'static str> {
        match (self.0)(cpus as u32) {
            why if why.is_null() => Ok(()),
            // SAFETY: `lab.h` says that it is a text of C.
            why => Err(unsafe { text(why) }),
        }
    }
}

/// A set of workloads, a bit for the number of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workloads(u32);

impl Workloads {
    /// Whether the one with this number is in it. No set is all of them.
    pub fn has(self, number: u32) -> bool {
        self.0 == 0 || self.0.checked_shr(number).is_some_and(|bits| bits & 1 != 0)
    }
}

/// What the number of a key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Whatever the key says.
    One,
    /// Milliseconds, which can be written as seconds too.
    Millisecond,
}

/// The variable of a C file that has the number of the value that was chosen.
#[derive(Clone, Copy, Debug)]
pub struct Chosen(*mut u32);

// SAFETY: only the first CPU writes it, before all others run.
unsafe impl Send for Chosen {}

impl Chosen {
    /// The number of the value.
    pub fn get(self) -> u32 {
        // SAFETY: the macro that makes the entry points it to a variable of this type.
        unsafe { self.0.read_volatile() }
    }

    /// Chooses the value with this number.
    pub fn set(self, number: u32) {
        // SAFETY: as above; no code of C runs yet.
        unsafe { self.0.write_volatile(number) }
    }
}

/// The variable of a C file that has the number of a key.
#[derive(Clone, Copy, Debug)]
pub struct Chosen64(*mut u64);

impl Chosen64 {
    /// As long as nobody has said it, and no default was chosen.
    const UNSET: u64 = u64::MAX;

    /// The number, if there is one.
    pub fn get(self) -> Option<u64> {
        // SAFETY: the macro that makes the entry points it to a variable of this type.
        let number = unsafe { self.0.read_volatile() };
        (number != Self::UNSET).then_some(number)
    }

    /// Chooses this number.
    pub fn set(self, number: u64) {
        // SAFETY: as above; only the first CPU does, before all others run.
        unsafe { self.0.write_volatile(number) }
    }
}

impl RawEntry {
    /// The function of this entry, which C calls one without arguments.
    ///
    /// # Safety
    /// It must be one.
    unsafe fn function(self) -> extern "C" fn() {
        // SAFETY: by the caller's promise.
        unsafe { core::mem::transmute::<*const u8, extern "C" fn()>(self.first) }
    }

    fn read(self) -> Entry {
        let number = self.number as u32;
        match self.kind {
            // SAFETY: LAB_DEED makes these entries of functions of this type.
            1 => Entry::Deed(number, unsafe {
                core::mem::transmute::<*const u8, extern "C" fn(*const CCommand) -> i64>(self.first)
            }),
            // SAFETY: LAB_VECTOR makes these, likewise.
            2 => Entry::Handler(number as u8, unsafe { self.function() }),
            3 => {
                // SAFETY: LAB_WORD makes these of a text and a variable.
                let key = unsafe { text(self.first) };
                let chosen = Chosen(self.second.cast_mut().cast());
                Entry::Word(key, chosen, Workloads(number))
            }
            kind @ (4 | 5) => {
                // SAFETY: LAB_VALUE makes these of two texts.
                let key = unsafe { text(self.first) };
                // SAFETY: likewise.
                let value = unsafe { text(self.second) };
                Entry::Value(key, value, number, kind == 5)
            }
            // SAFETY: LAB_JUDGE makes these of functions of this type.
            6 => Entry::Judge(unsafe { self.function() }),
            // SAFETY: LAB_HOTPLUG makes the one of such a structure, which is constant.
            7 => Entry::Hotplug(unsafe { &*self.first.cast() }),
            kind @ (11 | 12) => {
                // SAFETY: LAB_WORKLOAD and LAB_BENCH make these, likewise.
                let part = unsafe { self.function() };
                let ends_with_the_first = kind == 12;
                let work = Work {
                    part,
                    ends_with_the_first,
                };
                Entry::Workload(number, work)
            }
            kind @ (13 | 14) => {
                // SAFETY: LAB_WORKLOAD_NUMBER and LAB_WORKLOAD_TIME make these of a text and a
                // variable.
                let key = unsafe { text(self.first) };
                let chosen = Chosen64(self.second.cast_mut().cast());
                let unit = [Unit::One, Unit::Millisecond][usize::from(kind == 14)];
                Entry::Number(key, chosen, unit, Workloads(number))
            }
            // SAFETY: LAB_DEFAULTS makes these of functions of this type.
            15 => Entry::Defaults(Defaults(unsafe {
                core::mem::transmute::<*const u8, extern "C" fn(u32) -> *const u8>(self.first)
            })),
            kind => panic!("the section lab_entries has an entry of the unknown kind {kind}"),
        }
    }
}

#[cfg(feature = "image")]
unsafe extern "C" {
    // The linker script puts these around the table, and around the constructors of C.
    static lab_entries_start: RawEntry;
    static lab_entries_end: RawEntry;
    static lab_constructors_start: extern "C" fn();
    static lab_constructors_end: extern "C" fn();
}

/// All entries.
#[cfg(feature = "image")]
pub fn entries() -> impl Iterator<Item = Entry> {
    // SAFETY: the two symbols bound a section that holds nothing else.
    let raw = unsafe { between(&raw const lab_entries_start, &raw const lab_entries_end) };
    raw.iter().map(|entry| entry.read())
}

/// All entries: outside of an image there are none.
#[cfg(not(feature = "image"))]
pub fn entries() -> impl Iterator<Item = Entry> {
    core::iter::empty::<RawEntry>().map(RawEntry::read)
}

/// Runs the constructors of the C files.
pub fn construct() {
    #[cfg(feature = "image")]
    {
        // SAFETY: the two symbols bound a section of pointers to such functions.
        let all = unsafe {
            between(
                &raw const lab_constructors_start,
                &raw const lab_constructors_end,
            )
        };
        all.iter().for_each(|constructor| constructor());
    }
}

/// What lies between two symbols.
///
/// # Safety
/// There are values of this type and nothing else.
#[cfg(feature = "image")]
unsafe fn between<T>(start: *const T, end: *const T) -> &'static [T] {
    let count = (end.addr() - start.addr()) / size_of::<T>();
    // SAFETY: by the caller's promise.
    unsafe { core::slice::from_raw_parts(start, count) }
}
