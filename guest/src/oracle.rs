//! The oracles of this guest. The manifest tells a reader of findings what the number of each
//! means. To add an oracle, add it to the list here, and report it where it is seen not to hold.

use kit::declare;
use kit::manifest::Record;
use shared::lab::ORACLE_SLOTS;

/// Makes the oracles, and declares each: its number in findings, its name, and what went wrong, as
/// a clause without a subject.
macro_rules! oracles {
    ($(
        $(#[doc = $doc:literal])+
        $oracle:ident = $number:literal, $name:literal: $text:literal;
    )+) => {
        /// A property that a run must have. A finding names the one that did not hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Oracle {
            $($(#[doc = $doc])+ $oracle = $number,)+
        }

        impl Oracle {
            /// Every oracle.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$oracle),+];

            /// The name by which scripts and reports know it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$oracle => $name,)+
                }
            }

            /// What went wrong, as a clause without a subject.
            pub const fn describe(self) -> &'static str {
                match self {
                    $(Self::$oracle => $text,)+
                }
            }
        }

        $(const _: () = assert!(0 < $number && $number < ORACLE_SLOTS);)+

        declare! {
            $(Record::oracle($number, $name, $text),)+
        }
    };
}

oracles! {
    /// A call did not run on one of its targets.
    Lost = 1, "lost": "never ran on a target";
    /// A call ran more than once on one CPU.
    Duplicate = 2, "duplicate": "ran more than once on a target";
    /// A call ran on a CPU that is not among its targets.
    WrongCpu = 3, "wrong-cpu": "ran on a CPU it was not made to";
    /// A function ran with the argument of another function's call.
    WrongFunction = 4, "wrong-function": "ran the wrong function";
    /// A function ran with an argument that belongs to no open call: reused, freed or torn.
    StaleArgument = 5, "stale-argument": "ran with an argument that is no open call's";
    /// A waiting call returned before it had run on every target.
    EarlyReturn = 6, "early-return": "returned to its waiting caller before it had run everywhere";
    /// A call descriptor was left locked when nothing was in flight.
    LeftLocked = 7, "left-locked": "left a call descriptor locked";
    /// A queue was left with something on it, or with broken links.
    BrokenQueue = 8, "broken-queue": "left a queue broken or not empty";
    /// A function ran with interrupts enabled.
    InterruptsOn = 9, "interrupts-on": "ran with interrupts enabled";
    /// A reference count fell below zero, or disagreed with its mask.
    BadRefs = 10, "bad-refs": "had a reference count that went wrong";
    /// The guest broke a rule of the calling contract, such as waiting with interrupts off.
    Contract = 11, "contract": "broke the calling contract";
    /// The ledger and the counters do not add up.
    Accounting = 12, "accounting": "does not add up in the counters";
    /// Memory was used after it was freed, or freed twice.
    UseAfterFree = 13, "use-after-free": "used memory that had been freed";
    /// Memory is neither in use nor free.
    Leak = 14, "leak": "left memory that is neither in use nor free";
    /// An element was queued again while a CPU still stood on it, in a design that waits until none
    /// can.
    ReusedTooSoon = 15, "reused-too-soon": "reused an element on which a CPU still stood";
}

impl TryFrom<u32> for Oracle {
    /// The value that names no oracle.
    type Error = u32;

    fn try_from(value: u32) -> Result<Self, u32> {
        Self::ALL
            .into_iter()
            .find(|oracle| *oracle as u32 == value)
            .ok_or(value)
    }
}
