//! Schedules: which CPU runs, for how long, and which interrupt it takes. A search finds one, and a
//! replay follows it. Plain data, with its form in files.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::memory::Memory;
use crate::provenance::Provenance;
use crate::text;

/// What a CPU can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Act {
    /// It goes on with its program.
    GoOn,
    /// It takes the pending interrupt with this vector.
    Take(u8),
    /// The oldest entry of its store buffer leaves: the CPU itself does nothing.
    Flush,
    /// The INIT or start-up IPI that was sent to it first arrives.
    Arrive,
}

/// A choice of what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Choice {
    /// The CPU.
    pub cpu: usize,
    /// What it does.
    pub act: Act,
}

impl Choice {
    /// `cpu` goes on.
    pub const fn go_on(cpu: usize) -> Self {
        let act = Act::GoOn;
        Self { cpu, act }
    }

    /// `cpu` takes the interrupt with this vector.
    pub const fn take(cpu: usize, vector: u8) -> Self {
        let act = Act::Take(vector);
        Self { cpu, act }
    }

    /// The store buffer of `cpu` gives up its oldest entry.
    pub const fn flush(cpu: usize) -> Self {
        let act = Act::Flush;
        Self { cpu, act }
    }

    /// An INIT or start-up IPI arrives at `cpu`.
    pub const fn arrive(cpu: usize) -> Self {
        let act = Act::Arrive;
        Self { cpu, act }
    }

    /// The interrupt that is taken, if one is.
    pub const fn takes(self) -> Option<u8> {
        match self.act {
            Act::Take(vector) => Some(vector),
            Act::GoOn | Act::Flush | Act::Arrive => None,
        }
    }
}

/// One CPU's turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// The CPU.
    pub cpu: u32,
    /// The pending interrupt that it takes first, if it takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes: Option<u8>,
    /// Whether the oldest entry of its store buffer leaves first. That counts as a stop, at which
    /// the CPU still is where it was. Later in a turn an entry leaves, and counts, where the CPU has
    /// to wait for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flushes: bool,
    /// Whether an INIT or start-up IPI that was sent to it arrives first: the one that was sent
    /// first. After an INIT the CPU waits to be started, which counts as a stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub arrives: bool,
    /// The number of stops that it comes to. The last one ends the turn.
    pub stops: u32,
    /// The last stop, in words.
    pub until: String,
    /// The key of the state at the end of the turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl Turn {
    /// The choice with which it begins.
    pub fn choice(&self) -> Choice {
        let cpu = self.cpu as usize;
        match self.takes {
            Some(vector) => Choice::take(cpu, vector),
            None if self.flushes => Choice::flush(cpu),
            None if self.arrives => Choice::arrive(cpu),
            None => Choice::go_on(cpu),
        }
    }
}

/// A step of a schedule, by the stop that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The turn, from 0.
    pub turn: usize,
    /// The stop of that turn, from 0.
    pub stop: usize,
}

/// How far it is known that every order breaks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case", deny_unknown_fields)]
pub enum Claim {
    /// Every order was tried.
    Every,
    /// Some orders were tried, and each of them breaks something.
    NoneOf {
        /// The number of orders that were tried.
        ways: u64,
    },
}

/// The first step of a schedule after which every order of steps breaks something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PointOfNoReturn {
    /// The step.
    pub step: Step,
    /// The CPU that makes it.
    pub cpu: u32,
    /// What the CPU does in it.
    pub does: String,
    /// The source line of that, as `file:line`; empty if it is not known.
    pub place: String,
    /// How far it is known that every order breaks something from there on.
    pub claim: Claim,
    /// Whether every order breaks something from the initial state on. The step is then the first
    /// of the schedule.
    #[serde(default)]
    pub at_beginning: bool,
    /// The step by which another CPU first accesses what was changed, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meets: Option<Step>,
}

/// The version of the form in files.
pub const FORM: &str = "ipi-lab-schedule/2";

/// The previous version, without provenance. It can be read as well.
const WITHOUT_PROVENANCE: &str = "ipi-lab-schedule/1";

/// A schedule of a case, with everything that is needed to replay it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// [`FORM`].
    pub form: String,
    /// Where the schedule comes from; absent in the previous version of the form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// The case.
    pub case: String,
    /// Options for the guest, in addition to those of the case.
    pub append: String,
    /// Where CPUs stop.
    pub granularity: Granularity,
    /// The memory model.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: Memory,
    /// The addresses of the words to which stores wait in a store buffer; others are in memory at
    /// once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buffered: Vec<u64>,
    /// The hash of the guest's image.
    pub image: String,
    /// The hash of the initial state.
    pub begins: String,
    /// The turns.
    pub turns: Vec<Turn>,
    /// What breaks: names of oracles and of other breaches; empty if nothing breaks.
    pub breaks: Vec<String>,
    /// The condition of the case that it reaches, if it was found for that. Then it breaks nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reaches: Option<String>,
    /// The sentence of the data race that it comes to, if it was found for that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub races: Vec<String>,
    /// The step from which on every order breaks something, if it was found. A replay shows it
    /// without checking it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_of_no_return: Option<PointOfNoReturn>,
}

fn is_default(memory: &Memory) -> bool {
    *memory == Memory::default()
}

/// Where CPUs stop, so that other CPUs can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// At named probes.
    Probe,
    /// Before every access to memory that CPUs share.
    Access,
    /// Before every access, as with [`Granularity::Access`], but without any reduction: for the
    /// reference search.
    Every,
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "probe",
            Self::Access => "access",
            Self::Every => "every",
        })
    }
}

/// Why a text is not a schedule.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// It has not the form of a schedule.
    #[error("it is no schedule: {0}")]
    NotOne(#[from] serde_json::Error),
    /// Its form has another version.
    #[error("it has form \"{0}\", this vmm reads {FORM}; find it anew with vmm explore")]
    OtherForm(String),
}

impl Schedule {
    /// Reads a schedule as `vmm explore` writes it.
    ///
    /// # Errors
    /// [`ScheduleError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        /// The only part that all versions have in common.
        #[derive(Deserialize)]
        struct Header {
            form: String,
        }
        let Header { form } = serde_json::from_str(text)?;
        if form != FORM && form != WITHOUT_PROVENANCE {
            return Err(ScheduleError::OtherForm(form));
        }
        Ok(text::json(text)?)
    }

    /// The number of changes from one CPU to another.
    pub fn switches(&self) -> usize {
        switches(&self.turns)
    }
}

/// The number of changes from one CPU to another in `turns`.
pub fn switches(turns: &[Turn]) -> usize {
    turns
        .windows(2)
        .filter(|pair| pair[0].cpu != pair[1].cpu)
        .count()
}

/// Whether `turns`, which lead back to the state in which they began, are a fair cycle: each of the
/// `choices` that there are in its states is made. CPUs can follow a fair cycle for ever. In an
/// unfair one, something that could happen is delayed for ever, which a real machine does not do.
pub fn is_fair_cycle(turns: &[Turn], choices: impl IntoIterator<Item = Choice>) -> bool {
    let is_made = |choice| turns.iter().any(|turn| turn.choice() == choice);
    choices.into_iter().all(is_made)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::control_characters::spell_out;
    use crate::provenance::Input;
    use crate::stats::sources::Kvm;
    use proptest::prelude::*;

    #[test]
    fn a_cycle_is_fair_if_every_choice_on_it_is_made() {
        let turn = |cpu, takes| Turn {
            cpu,
            takes,
            flushes: false,
            arrives: false,
            stops: 1,
            until: "relax".to_owned(),
            state: None,
        };
        let (go_on, take) = (Choice::go_on, Choice::take);
        let cycle = [turn(0, None), turn(0, Some(0xfb)), turn(2, None)];
        assert!(is_fair_cycle(&cycle, [go_on(0), go_on(2), go_on(0)]));
        assert!(is_fair_cycle(&cycle, [take(0, 0xfb)]));
        assert!(!is_fair_cycle(&cycle, [go_on(0), go_on(1)]));
        assert!(!is_fair_cycle(&cycle, [take(0, 0xfc)]));
        assert!(!is_fair_cycle(&cycle, [take(2, 0xfb)]));
        assert!(!is_fair_cycle(&cycle, [Choice::flush(0)]));
    }

    fn turn() -> impl Strategy<Value = Turn> {
        let state = proptest::option::of("[0-9a-f]{32}");
        let choice = (any::<u32>(), any::<Option<u8>>(), any::<[bool; 2]>());
        let parts = (choice, any::<u32>(), ".*", state);
        parts.prop_map(
            |((cpu, takes, [flushes, arrives]), stops, until, state)| Turn {
                cpu,
                takes,
                flushes,
                arrives,
                stops,
                until,
                state,
            },
        )
    }

    fn provenance_of_a_test() -> Provenance {
        let guest = Input::new(Path::new("explore.bin"), b"");
        Provenance::new(Kvm::Emulated, guest, 2, "queue=fifo")
    }

    fn point_of_no_return() -> impl Strategy<Value = PointOfNoReturn> {
        let step = || {
            any::<(u32, u32)>().prop_map(|(turn, stop)| Step {
                turn: turn as usize,
                stop: stop as usize,
            })
        };
        let claim = prop_oneof![
            Just(Claim::Every),
            any::<u64>().prop_map(|ways| Claim::NoneOf { ways })
        ];
        let meets = proptest::option::of(step());
        let parts = (
            step(),
            any::<u32>(),
            ".*",
            ".*",
            claim,
            any::<bool>(),
            meets,
        );
        parts.prop_map(
            |(step, cpu, does, place, claim, at_beginning, meets)| PointOfNoReturn {
                step,
                cpu,
                does,
                place,
                claim,
                at_beginning,
                meets,
            },
        )
    }

    fn schedule() -> impl Strategy<Value = Schedule> {
        let granularity = prop_oneof![
            Just(Granularity::Probe),
            Just(Granularity::Access),
            Just(Granularity::Every)
        ];
        let texts = (".*", ".*", "[0-9a-f]{32}", "[0-9a-f]{32}");
        let turns = proptest::collection::vec(turn(), 0..20);
        let breaks = proptest::collection::vec("[a-z-]+", 0..3);
        let lost = proptest::option::of(point_of_no_return());
        let memory = prop_oneof![Just(Memory::SequentiallyConsistent), Just(Memory::Tso)];
        let memory = (memory, proptest::collection::vec(any::<u64>(), 0..3));
        let parts = (
            texts,
            (granularity, memory),
            turns,
            breaks,
            any::<bool>(),
            lost,
        );
        parts.prop_map(
            |(texts, (granularity, (memory, buffered)), turns, breaks, provenance, lost)| {
                let (case, append, image, begins) = texts;
                Schedule {
                    form: FORM.to_owned(),
                    provenance: provenance.then(provenance_of_a_test),
                    case,
                    append,
                    races: Vec::new(),
                    granularity,
                    memory,
                    buffered,
                    image,
                    begins,
                    turns,
                    breaks,
                    reaches: provenance.then(|| "reach x = 1".to_owned()),
                    point_of_no_return: lost,
                }
            },
        )
    }

    const LEAST: &str = r#"{"form": "ipi-lab-schedule/1", "case": "cpus 1", "append": "",
        "granularity": "access", "image": "", "begins": "",
        "turns": [{"cpu": 0, "stops": 1, "until": "idle"}], "breaks": []}"#;

    #[test]
    fn what_may_be_missing_is_the_interrupt_and_the_state() {
        let schedule = Schedule::parse(LEAST).unwrap();
        assert_eq!(schedule.turns[0].takes, None);
        assert_eq!(schedule.turns[0].state, None);
        assert_eq!(schedule.provenance, None, "the form before had none");
        for needed in ["stops", "until", "breaks", "begins", "granularity"] {
            let without = LEAST.replace(needed, "another");
            let error = Schedule::parse(&without).unwrap_err().to_string();
            assert!(
                error.contains(needed) || error.contains("another"),
                "{error}"
            );
        }
    }

    #[test]
    fn another_version_is_told_from_no_schedule() {
        let newer = r#"{"form": "ipi-lab-schedule/3", "steps": 7}"#;
        let error = Schedule::parse(newer).unwrap_err();
        assert!(matches!(error, ScheduleError::OtherForm(form) if form == "ipi-lab-schedule/3"));
        let error = Schedule::parse("{}").unwrap_err();
        assert!(matches!(error, ScheduleError::NotOne(_)), "{error}");
    }

    #[test]
    fn switches_are_changes_of_the_cpu() {
        let mut schedule = Schedule::parse(LEAST).unwrap();
        assert_eq!(schedule.switches(), 0);
        let turn = schedule.turns[0].clone();
        let of = |cpu| Turn {
            cpu,
            ..turn.clone()
        };
        schedule.turns = [0, 0, 2, 1, 1].map(of).to_vec();
        assert_eq!(schedule.switches(), 2);
    }

    proptest! {
        #[test]
        fn a_schedule_is_read_as_it_was_written(schedule in schedule()) {
            let text = serde_json::to_string_pretty(&schedule).unwrap();
            let read = Schedule::parse(&text).unwrap();
            // Control characters are spelled out.
            if !text.contains('\\') && spell_out(&text) == text {
                prop_assert_eq!(&read, &schedule);
            }
            let again = serde_json::to_string_pretty(&read).unwrap();
            prop_assert_eq!(Schedule::parse(&again).unwrap(), read);
        }

        #[test]
        fn no_text_panics(text in r#"[\[\]{}:,"0-9.e-]*|\PC*"#) {
            let _ = Schedule::parse(&text);
        }

        #[test]
        fn no_json_in_the_place_of_a_value_panics(
            place in "form|case|append|granularity|image|begins|turns|breaks|cpu|stops|until",
            value in concat!(
                r#"-?[0-9]{1,30}|"\w*"|null|true|\[\]|\{\}|\[\[\]\]"#,
                r"|[0-9]{1,3}(\.[0-9]+|e[0-9]{1,5})",
            ),
        ) {
            let key = format!("\"{place}\": ");
            let start = LEAST.find(&key).unwrap() + key.len();
            let length = LEAST[start..].find([',', '}']).unwrap();
            let text = format!("{}{value}{}", &LEAST[..start], &LEAST[start + length..]);
            let _ = Schedule::parse(&text);
        }
    }
}
