//! The manifest: what a guest says of itself to a reader of its image.
//!
//! It is the section [`SECTION`], which holds [`Record`]s and nothing else, in any order. Each
//! stands in the source beside what it describes, and the linker collects them, as Linux does with
//! `.modinfo`. The section is not loaded and nothing points into it, so it costs the guest nothing.
//! A record is made of integers and texts, so that C can write one as well:
//!
//! ```c
//! __attribute__((used, section(".manifest"), aligned(8)))
//! static const struct manifest_record visits = {
//!     .version = 1, .kind = 7, .number = 6, .total = 1,
//!     .name = "visits", .text = "Elements that walks stood on.",
//! };
//! ```
//!
//! The VMM accepts a manifest as a whole or not at all. It refuses another [`VERSION`], and a
//! record that fills a field which its kind does not use: fields that the descriptions below do not
//! name for a kind are zero. `docs/manifest.md` says what each kind is for.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The section of the image that holds every [`Record`], one after the other and nothing else.
pub const SECTION: &str = ".manifest";

/// Version of [`Record`]. Each record carries it, because objects from several compilers can be
/// linked into one image.
pub const VERSION: u32 = 1;

/// Most records an image can have.
pub const MAX_RECORDS: usize = 1024;

/// Bytes of a record.
pub const RECORD_LEN: usize = 512;

/// Bytes of a name, of a group and of a key.
pub const NAME_LEN: usize = 32;

/// Bytes of the name of a metric.
pub const METRIC_LEN: usize = 48;

/// Bytes of a phrase.
pub const PHRASE_LEN: usize = 80;

/// Bytes of a sentence, or of a path.
pub const TEXT_LEN: usize = 256;

/// Arguments of a deed.
pub const ARGUMENTS: usize = 4;

/// One statement of a guest about itself. Texts are UTF-8 without control characters; their unused
/// bytes are zero.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// What it is about: a [`Kind`].
    pub kind: u32,
    /// Vector: the vector. Word: [`Measure`], or 0. Deed: the verb in its mailbox. Counter: which
    /// word of a CPU's row. Oracle: its number in findings. Value: its place among those of its
    /// key.
    pub number: u32,
    /// Vector: [`VectorRole`]. Point: [`PointRole`]. Word: [`Search`]. Counter: [`CounterRole`].
    /// Source: [`SourceRole`].
    pub role: u32,
    /// Point: [`WAITS`]. Value: [`BROKEN`], [`HARMLESS`]. Deed: [`MAY_WAIT`], [`IN_HANDLER`],
    /// [`ANSWERS`], [`IN_CASE`], [`ENDS`], [`TAKES_PROGRAM`], [`ENTERS_CALL`]. Counter: [`PROGRESS`].
    pub flags: u32,
    /// Deed: an [`Argument`] each, the first zero ends them.
    pub arguments: [u8; ARGUMENTS],
    /// Counter: [`Total`].
    pub total: u32,
    /// Counter: one more than the number of the counter of which this one counts a part, or 0.
    pub whole: u32,
    /// Guest, vector, deed, counter, oracle: its name. Point: the point's. Word: the key. Value:
    /// the value.
    pub name: [u8; NAME_LEN],
    /// Point: the lane of a stretch of time. Word: the value that a bench sets. Value: the key.
    /// Deed: the key of which its words are values, or nothing. Counter: the group in which reports
    /// show it, or nothing.
    pub group: [u8; NAME_LEN],
    /// Guest: its version. Point: the name of a wait in reports. Word: the value that a search
    /// sets. Deed: another name, or nothing. Counter: its name in its group.
    pub key: [u8; NAME_LEN],
    /// Counter: its name for Prometheus, or nothing.
    pub metric: [u8; METRIC_LEN],
    /// Word: why its value is fixed in a search, as a clause that follows "it has no effect in a
    /// search", or nothing. Counter: how a report for people says it, with `{}` for the figure, or
    /// nothing.
    pub phrase: [u8; PHRASE_LEN],
    /// A sentence about it. Point: only of a wait. Value: why it can break nothing, as a clause
    /// that follows "it", or nothing. Oracle: what went wrong, as a clause without a subject.
    /// Source: the path, or function.
    pub text: [u8; TEXT_LEN],
}

const _: () = {
    assert!(size_of::<Record>() == RECORD_LEN);
    assert!(align_of::<Record>() == 8);
    assert!(offset_of!(Record, number) == 8);
    assert!(offset_of!(Record, arguments) == 20);
    assert!(offset_of!(Record, name) == 32);
    assert!(offset_of!(Record, group) == 64);
    assert!(offset_of!(Record, key) == 96);
    assert!(offset_of!(Record, metric) == 128);
    assert!(offset_of!(Record, phrase) == 176);
    assert!(offset_of!(Record, text) == 256);
};

/// [`Record::flags`] of a point that begins a stretch: the CPU only waits in it, and how long is
/// reported.
pub const WAITS: u32 = 1;

/// [`Record::flags`] of a value: it asks for a design that is kept for what is wrong with it.
pub const BROKEN: u32 = 1;

/// [`Record::flags`] of a value: it can break nothing where memory is sequentially consistent.
pub const HARMLESS: u32 = 2;

/// [`Record::flags`] of a deed: its command may ask that the CPU waits until it has been done
/// everywhere.
pub const MAY_WAIT: u32 = 1;

/// [`Record::flags`] of a deed: it can be told to an interrupt handler too, as one of a
/// [program](crate::program). If it breaks a rule there, such as a call that waits, that is for the
/// guest's oracles to say.
pub const IN_HANDLER: u32 = 2;

/// [`Record::flags`] of a deed: it writes a list into the mailbox, and its result is the length of
/// the list.
pub const ANSWERS: u32 = 4;

/// [`Record::flags`] of a deed: a case may use it. The others are only for what tells one CPU at a
/// time, such as a script.
pub const IN_CASE: u32 = 8;

/// [`Record::flags`] of a deed: it ends the workload, and its one argument is a set of CPUs. It is
/// posted to every CPU of that set, with the same set, and never to one CPU alone. A CPU that has
/// begun it looks at no later command. When all CPUs of the set have begun it, and have taken every
/// interrupt that was sent to them, the guest looks for what was left behind, reports it, and ends
/// the run. It waits for no other CPU.
pub const ENDS: u32 = 16;

/// [`Record::flags`] of a deed: a [program](crate::program) can go with it. The guest does that in
/// the function of the call that the deed makes, or in the interrupt that it asks for.
pub const TAKES_PROGRAM: u32 = 32;

/// [`Record::flags`] of a deed: it makes a call to just the CPU, or CPUs, that it is told, and the
/// guest enters that call in the [ledger](crate::ledger) with these targets. From the ledger of a run
/// a case is made by it.
pub const ENTERS_CALL: u32 = 64;

/// [`Record::flags`] of a counter: it moves only when a CPU makes progress, and never in a loop
/// that waits.
pub const PROGRESS: u32 = 1;

/// Defines names for the numbers of a field.
macro_rules! numbers {
    (
        $(#[$about:meta])*
        $name:ident {
            $($(#[$what:meta])* $variant:ident = $number:literal $text:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$what])* $variant = $number,)+
        }

        impl $name {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl TryFrom<u32> for $name {
            /// The number that is none of these.
            type Error = u32;

            fn try_from(number: u32) -> Result<Self, u32> {
                match number {
                    $($number => Ok(Self::$variant),)+
                    unknown => Err(unknown),
                }
            }
        }
    };
}

numbers! {
    /// What a record is about.
    Kind {
        /// The guest itself. Once.
        Guest = 1 "guest",
        /// A vector at which it takes interrupts.
        Vector = 2 "vector",
        /// What a point of the section `.probes` means in a trace.
        Point = 3 "point",
        /// A key of its command line.
        Word = 4 "word",
        /// A value of such a key.
        Value = 5 "value",
        /// What a CPU can be told to do.
        Deed = 6 "deed",
        /// A count that each CPU keeps.
        Counter = 7 "counter",
        /// A property that it watches.
        Oracle = 8 "oracle",
        /// Which parts of its source are shown, and how.
        Source = 9 "source",
    }
}

numbers! {
    /// What a vector is for.
    VectorRole {
        /// It announces calls.
        Call = 1 "call",
        /// It wakes a CPU that sleeps, and nothing else.
        Wake = 2 "wake",
        /// Of the lowest priority: a CPU that takes it has taken all that were pending.
        Last = 3 "last",
        /// It is sent only to measure what an IPI costs.
        Measured = 4 "measured",
        /// The interrupt of a CPU's timer: the CPU sends it to itself when it sets the timer, and
        /// it stands for one that can come at any time from then on.
        Timer = 5 "timer",
    }
}

numbers! {
    /// What a point means in a trace.
    PointRole {
        /// A stretch of its lane begins.
        Begin = 1 "begin",
        /// It ends.
        End = 2 "end",
        /// A handler begins; the detail is the vector.
        HandlerBegin = 3 "handler-begin",
        /// It ends.
        HandlerEnd = 4 "handler-end",
        /// An IPI leaves; the detail is a [`Dispatch`](crate::ports::Dispatch).
        Send = 5 "send",
        /// The function of the call at hand begins to run.
        Run = 6 "run",
        /// A round of a bench is over; the detail is how long it took.
        Round = 7 "round",
        /// The rounds of a bench begin.
        Start = 8 "start",
        /// The loop of a bench is over ([`Measure::Classic`]); the detail is how long all its calls
        /// took from just before they were made to their functions.
        Delivered = 9 "delivered",
        /// The same; the detail is how long the loop took.
        Total = 10 "total",
    }
}

numbers! {
    /// What a search does with a key.
    Search {
        /// Its value matters there too.
        Decides = 1 "decides",
        /// The search sets it itself, to the value named.
        Set = 2 "set",
        /// It has no effect there.
        Without = 3 "without-effect",
    }
}

numbers! {
    /// What `vmm bench` does with a key. It knows the values of [`Measure::To`], [`Measure::By`],
    /// [`Measure::Receiver`], [`Measure::Transport`] and [`Measure::Apic`], and measures those that
    /// the guest has.
    Measure {
        /// The bench sets it to the value named, to choose the workload.
        Set = 1 "set",
        /// Where a round goes: `nobody`, `self`, `one` (CPU 1), `some` (every third from CPU 1 on)
        /// or `all` others.
        To = 2 "to",
        /// What a round is: an `ipi` or a `call`.
        By = 3 "by",
        /// What the others do: they are `halted`, `running`, or `stalled` by the VMM.
        Receiver = 4 "receiver",
        /// How IPIs leave a CPU: a name of [`Transport`](crate::lab::Transport), or `auto`.
        Transport = 5 "transport",
        /// How the APICs are reached: `xapic` or `x2apic`.
        Apic = 6 "apic",
        /// The design that carries calls to several CPUs. Each value that is not [`BROKEN`] is
        /// measured.
        Design = 7 "design",
        /// How many rounds there are.
        Rounds = 8 "rounds",
        /// What one loop repeats that is timed as a whole, instead of rounds one by one: a
        /// `dry-run`, a call to `self`, a `normal` one to another CPU, a `broadcast`, or a
        /// `broadcast-lock`, whose function takes a lock.
        Classic = 9 "classic",
    }
}

numbers! {
    /// What the VMM uses a counter for.
    CounterRole {
        /// It is only shown.
        Plain = 1 "plain",
        /// Operations that send IPIs by the transport that the counter's key names.
        Sent = 2 "sent",
        /// Targets of such operations.
        Targets = 3 "targets",
        /// Handlers entered.
        Received = 4 "received",
        /// Those of them that found nothing to do.
        Empty = 5 "empty",
        /// Operations that send IPIs to tell of calls.
        SentForCalls = 6 "sent-for-calls",
        /// CPUs that left: what was pending there is gone.
        Departed = 7 "departed",
        /// Pieces of work that the workload will do, whatever a piece is. It is known once the
        /// workload has begun, and is what [`CounterRole::Done`] comes to.
        Planned = 8 "planned",
        /// Those of them that have been done.
        Done = 9 "done",
    }
}

numbers! {
    /// How the counts of all CPUs become one.
    Total {
        /// They are added up.
        Sum = 1 "sum",
        /// The largest is taken.
        Max = 2 "max",
    }
}

numbers! {
    /// What a record says of the source.
    SourceRole {
        /// The root of the guest's source: paths are shown from here on, and files outside are not
        /// shown.
        Root = 1 "root",
        /// Files whose path contains this are not shown: all other code passes through them.
        SkipFile = 2 "skip-file",
        /// Functions whose name begins with this are not shown, for the same reason.
        SkipFunction = 3 "skip-function",
    }
}

numbers! {
    /// What an argument of a deed is.
    Argument {
        /// A CPU, in the mailbox's `arguments`.
        Cpu = 1 "CPU",
        /// CPUs, in its `mask`. At most one argument of a deed is.
        Cpus = 2 "CPUS",
        /// A number, in its `arguments`.
        Number = 3 "N",
        /// A value of the key that the record's group names, in its `arguments` by its place there.
        Word = 4 "WORD",
    }
}

/// `text`, followed by zeroes.
const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let bytes = text.as_bytes();
    assert!(bytes.len() <= N, "a text has no room in its record");
    let mut padded = [0; N];
    let mut at = 0;
    while at < bytes.len() {
        padded[at] = bytes[at];
        at += 1;
    }
    padded
}

/// These are used in constants, so that a text which is too long does not compile.
impl Record {
    const fn new(kind: Kind, name: &str, text: &str) -> Self {
        Self {
            version: VERSION,
            kind: kind as u32,
            number: 0,
            role: 0,
            flags: 0,
            arguments: [0; ARGUMENTS],
            total: 0,
            whole: 0,
            name: padded(name),
            group: [0; NAME_LEN],
            key: [0; NAME_LEN],
            metric: [0; METRIC_LEN],
            phrase: [0; PHRASE_LEN],
            text: padded(text),
        }
    }

    /// The guest `name` of this version, and what it is.
    pub const fn guest(name: &str, version: &str, text: &str) -> Self {
        let mut record = Self::new(Kind::Guest, name, text);
        record.key = padded(version);
        record
    }

    /// Vector `number`.
    pub const fn vector(number: u8, name: &str, role: VectorRole, text: &str) -> Self {
        let mut record = Self::new(Kind::Vector, name, text);
        record.number = number as u32;
        record.role = role as u32;
        record
    }

    /// What the points called `name` mean in a trace.
    pub const fn point(name: &str, role: PointRole) -> Self {
        let mut record = Self::new(Kind::Point, name, "");
        record.role = role as u32;
        record
    }

    /// The points called `begin` and `end` begin and end a stretch in `lane`.
    pub const fn stretch(begin: &str, end: &str, lane: &str) -> [Self; 2] {
        let mut records = [
            Self::point(begin, PointRole::Begin),
            Self::point(end, PointRole::End),
        ];
        records[0].group = padded(lane);
        records[1].group = padded(lane);
        records
    }

    /// As [`Record::stretch`], where the CPU only waits in the stretch. Reports give its times
    /// under the name `key`; `text` says what they are times of.
    pub const fn wait(begin: &str, end: &str, lane: &str, key: &str, text: &str) -> [Self; 2] {
        let mut records = Self::stretch(begin, end, lane);
        records[0].flags = WAITS;
        records[0].key = padded(key);
        records[0].text = padded(text);
        records
    }

    /// The key `name` of the command line, whose value decides something in a search as well.
    pub const fn word(name: &str, text: &str) -> Self {
        let mut record = Self::new(Kind::Word, name, text);
        record.role = Search::Decides as u32;
        record
    }

    /// A key that a search sets to `value` itself.
    pub const fn set_by_search(mut self, value: &str) -> Self {
        self.role = Search::Set as u32;
        self.key = padded(value);
        self
    }

    /// A key that has no effect in a search.
    pub const fn without_effect_in_search(mut self) -> Self {
        self.role = Search::Without as u32;
        self
    }

    /// Why the key's value is fixed in a search, or has no effect, as a clause.
    pub const fn because(mut self, why: &str) -> Self {
        self.phrase = padded(why);
        self
    }

    /// A key that a bench sets to `value`.
    pub const fn set_by_bench(mut self, value: &str) -> Self {
        self.number = Measure::Set as u32;
        self.group = padded(value);
        self
    }

    /// A key that a bench sets to choose what it measures.
    pub const fn measured_as(mut self, measure: Measure) -> Self {
        self.number = measure as u32;
        self
    }

    /// The value `name` of the key `key`, the one with this number, from 0.
    pub const fn value(key: &str, number: u32, name: &str) -> Self {
        let mut record = Self::new(Kind::Value, name, "");
        record.number = number;
        record.group = padded(key);
        record
    }

    /// A value that can break nothing where memory is sequentially consistent, and why, as a
    /// clause.
    pub const fn harmless(mut self, why: &str) -> Self {
        self.flags |= HARMLESS;
        self.text = padded(why);
        self
    }

    /// The deed with this verb, which takes these arguments.
    pub const fn deed(verb: u32, name: &str, arguments: &[Argument], text: &str) -> Self {
        let mut record = Self::new(Kind::Deed, name, text);
        record.number = verb;
        let mut at = 0;
        while at < arguments.len() {
            record.arguments[at] = arguments[at] as u8;
            at += 1;
        }
        record
    }

    /// A deed whose arguments that are words are values of `key`.
    pub const fn words_of(mut self, key: &str) -> Self {
        self.group = padded(key);
        self
    }

    /// A deed that has another name too.
    pub const fn or(mut self, name: &str) -> Self {
        self.key = padded(name);
        self
    }

    /// The counter in word `number` of a CPU's row. The counts of all CPUs are added up.
    pub const fn counter(number: u32, name: &str, text: &str) -> Self {
        let mut record = Self::new(Kind::Counter, name, text);
        record.number = number;
        record.role = CounterRole::Plain as u32;
        record.total = Total::Sum as u32;
        record
    }

    /// A counter that the VMM uses in this role.
    pub const fn reckoned(mut self, role: CounterRole) -> Self {
        self.role = role as u32;
        self
    }

    /// A counter of operations that send by `transport`.
    pub const fn sent_by(mut self, transport: &str) -> Self {
        self.role = CounterRole::Sent as u32;
        self.key = padded(transport);
        self
    }

    /// A counter of which reports show the largest of all CPUs.
    pub const fn largest(mut self) -> Self {
        self.total = Total::Max as u32;
        self
    }

    /// A counter that counts a part of what counter `whole` does, and never exceeds it.
    pub const fn part_of(mut self, whole: u32) -> Self {
        self.whole = whole + 1;
        self
    }

    /// A counter that a report shows: as `key` of `group` in JSON, in a line of `group` with
    /// `phrase`, in which `{}` stands for the figure, and as `metric`.
    pub const fn shown(mut self, group: &str, key: &str, phrase: &str, metric: &str) -> Self {
        self.group = padded(group);
        self.key = padded(key);
        self.phrase = padded(phrase);
        self.metric = padded(metric);
        self
    }

    /// The oracle with this number, and what went wrong if it finds something.
    pub const fn oracle(number: u32, name: &str, text: &str) -> Self {
        let mut record = Self::new(Kind::Oracle, name, text);
        record.number = number;
        record
    }

    /// Something about the source.
    pub const fn source(role: SourceRole, text: &str) -> Self {
        let mut record = Self::new(Kind::Source, "", text);
        record.role = role as u32;
        record
    }

    /// The same record with these flags set.
    pub const fn with(mut self, flags: u32) -> Self {
        self.flags |= flags;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_what_it_was_made_of() {
        let record = Record::deed(3, "call-many", &[Argument::Cpus], "Calls.").with(MAY_WAIT);
        assert_eq!((record.version, record.kind, record.number), (1, 6, 3));
        assert_eq!((record.flags, record.arguments), (1, [2, 0, 0, 0]));
        assert_eq!(&record.name[..10], b"call-many\0");
        assert_eq!(&record.text[..7], b"Calls.\0");
        let counter = Record::counter(7, "longest", "").part_of(0).largest();
        assert_eq!((counter.number, counter.whole, counter.total), (7, 1, 2));
    }

    #[test]
    fn every_number_has_its_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::try_from(*kind as u32), Ok(*kind));
        }
        assert_eq!(Kind::try_from(0), Err(0));
        assert_eq!(Argument::try_from(5), Err(5));
    }

    #[test]
    #[should_panic(expected = "no room")]
    fn a_text_that_is_too_long_is_refused() {
        let _ = Record::vector(1, &"x".repeat(NAME_LEN + 1), VectorRole::Wake, "");
    }
}
