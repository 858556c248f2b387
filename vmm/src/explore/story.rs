//! A schedule in a form for people: turn by turn, the stops of each CPU with their source lines.
//! Made by replaying the schedule once.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use shared::stop::Kind;

use super::errors::ExploreError;
use super::naming::{Word, WordNames};
use super::retrace::OnStop;
use super::schedule::{Act, Choice, Claim, PointOfNoReturn, Step};
use super::specimen::{Breach, BufferedStore, Entry, Signal, Specimen, Stop, place};
use crate::machine::image::Image;
use crate::machine::source::{Source, SourceLine};
use crate::machine::symbols::readable;
use crate::manifest::{self, Manifest, vectors};

/// One stop of a CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Beat {
    /// What the CPU is about to do.
    pub what: String,
    /// The source line of that, as `file:line`; empty if it is not known.
    pub place: String,
    /// The function of that line; empty if it is not known.
    pub function: String,
    /// Whether the CPU runs a handler, and not its task.
    pub in_handler: bool,
    /// The words that it is about to access, or whose change it waits for.
    pub words: Vec<Word>,
    /// Whether it is about to change them.
    pub writes: bool,
    /// The IPI that it is about to send, if any.
    pub sends: Option<Ipi>,
    /// What has left its store buffer on the way here.
    pub flushed: Vec<Flushed>,
}

/// What has left a store buffer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flushed {
    /// The word that was written to memory, or the IPI that was sent.
    pub what: String,
    /// The source line of the store, as `file:line`; empty if it is not known.
    pub place: String,
    /// The stop at which its CPU was about to make the store, if that is known. It has waited in the
    /// store buffer since.
    pub issued: Option<At>,
}

/// An IPI to a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Ipi {
    /// The CPU to which it is sent.
    pub target: usize,
    /// What is sent.
    pub signal: Signal,
}

/// A beat by its place in a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct At {
    /// The index of the scene.
    pub scene: usize,
    /// The index of the beat in the scene.
    pub beat: usize,
}

/// One CPU's turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scene {
    /// The CPU.
    pub cpu: usize,
    /// The interrupt that it takes first, or the INIT or start-up IPI that arrives first, if any.
    pub takes: Option<Signal>,
    /// Whether it begins with what leaves the CPU's store buffer: that is named at the first stop.
    pub flushes: bool,
    /// The beats that sent what it takes: several if it was sent again while it was pending, none
    /// if it was pending in the initial state.
    pub sent_by: Vec<At>,
    /// The stops, in order. At the last one the turn ends.
    pub beats: Vec<Beat>,
}

/// A whole schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Story {
    /// Number of CPUs.
    pub cpus: usize,
    /// The turns.
    pub scenes: Vec<Scene>,
    /// What broke.
    pub breaks: Vec<String>,
    /// Sentences that describe it.
    pub texts: Vec<String>,
    /// The point of no return, if it was found. After it, if there is one, the step by which
    /// another CPU first accesses what was changed.
    pub marks: Vec<Mark>,
    /// The guest's vectors, with their names.
    #[serde(skip)]
    pub vectors: Vec<manifest::Vector>,
}

/// A step that is marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// The beat at which the step ends.
    pub at: At,
    /// Why it is marked, and what it does.
    pub text: String,
}

/// Makes a story of a schedule, from its stops during a replay.
#[derive(Debug)]
pub struct StoryBuilder<'a> {
    image: &'a Image,
    source: Source<'a>,
    /// Which source files and functions are shown.
    shown: manifest::Source,
    vectors: Vec<manifest::Vector>,
    /// `None` until the first stop, because the names need the machine.
    words: Option<WordNames>,
    turn: Option<usize>,
    /// By CPU and address: the stops before the stores there, and their places.
    stored: HashMap<(usize, u64), Vec<(At, String)>>,
    plot: Plot,
}

/// The scenes so far, and the IPIs between them.
#[derive(Debug, Default)]
struct Plot {
    scenes: Vec<Scene>,
    /// By CPU: the IPI that it is about to send at its last stop, and the beat of that stop. The
    /// IPI is sent when the CPU goes on.
    leaving: HashMap<usize, (Ipi, At)>,
    /// The IPIs that were sent and are pending, each with the beats that sent it.
    pending: HashMap<Ipi, Vec<At>>,
}

impl Plot {
    /// A scene begins with `choice`, which has brought the CPU to `until`.
    fn begin(&mut self, choice: Choice, until: Stop) {
        let target = choice.cpu;
        let takes = match choice.act {
            Act::Take(vector) => Some(Signal::Interrupt(vector)),
            Act::Arrive if until == Stop::WaitsForStartUp => Some(Signal::Init),
            Act::Arrive => {
                let to_it = self.pending.keys().filter(|ipi| ipi.target == target);
                let mut signals = to_it.map(|ipi| ipi.signal);
                signals.find(|signal| matches!(signal, Signal::StartUp(_)))
            }
            Act::GoOn | Act::Flush => None,
        };
        let taken = takes.map(|signal| Ipi { target, signal });
        let sent_by = taken.and_then(|ipi| self.pending.remove(&ipi));
        let sent_by = sent_by.unwrap_or_default();
        if let (Some(Signal::Init), Some(first)) = (takes, sent_by.first()) {
            // What was sent to it before has arrived, without effect.
            for (_, sent) in self
                .pending
                .iter_mut()
                .filter(|(ipi, _)| ipi.target == target)
            {
                sent.retain(|at| at > first);
            }
        }
        self.scenes.push(Scene {
            cpu: target,
            takes,
            flushes: choice.act == Act::Flush,
            sent_by,
            beats: Vec::new(),
        });
    }

    /// Where the next beat will be.
    fn next(&self) -> Option<At> {
        let scene = self.scenes.len().checked_sub(1)?;
        let beat = self.scenes[scene].beats.len();
        Some(At { scene, beat })
    }

    /// Adds a beat to the last scene.
    fn add(&mut self, beat: Beat) {
        let (Some(at), Some(scene)) = (self.next(), self.scenes.last_mut()) else {
            return;
        };
        if let Some((ipi, sent)) = self.leaving.remove(&scene.cpu) {
            self.pending.entry(ipi).or_default().push(sent);
        }
        if let Some(ipi) = beat.sends {
            self.leaving.insert(scene.cpu, (ipi, at));
        }
        scene.beats.push(beat);
    }
}

impl<'a> StoryBuilder<'a> {
    /// A builder for schedules of the guest in `image`.
    pub fn new(image: &'a Image) -> Self {
        // A manifest that cannot be read is refused before the first stop, so that the error need
        // not be reported here.
        let manifest = Manifest::of(image).ok().flatten();
        let manifest = manifest.unwrap_or_default();
        Self {
            image,
            source: Source::read(image.bytes()),
            shown: manifest.source,
            vectors: manifest.vectors,
            words: None,
            turn: None,
            stored: HashMap::new(),
            plot: Plot::default(),
        }
    }

    /// Adds the stop to which `choice` has led, in the turn with the index `turn`.
    pub fn hear(&mut self, specimen: &Specimen, choice: Choice, turn: usize) {
        let stopped = &specimen.cpus()[choice.cpu];
        let place = self.place(specimen, choice.cpu);
        let names = (self.words).get_or_insert_with(|| WordNames::of(self.image, specimen));
        let buffer = stopped.buffer();
        let flushed = specimen.left_buffer().iter().map(|entry| {
            let (name, store) = match entry {
                Entry::Store(store) => {
                    // Of the stores there, as many as are still in the buffer came after it.
                    let same = |other: &&BufferedStore| other.address == store.address;
                    let later = buffer.stores().filter(same).count();
                    let there = self.stored.get(&(choice.cpu, store.address));
                    (
                        names.accessed(specimen, store.address).name,
                        there.and_then(|there| there.iter().rev().nth(later)),
                    )
                }
                Entry::Ipi { .. } => (None, None),
            };
            Flushed {
                what: name.unwrap_or_else(|| specimen.describe_entry(entry)),
                place: store.map_or_else(String::new, |(_, place)| place.clone()),
                issued: store.map(|(at, _)| *at),
            }
        });
        let flushed = flushed.collect();
        if self.turn != Some(turn) {
            self.turn = Some(turn);
            self.plot.begin(choice, stopped.at);
        }
        if let Stop::Access(Kind::Store, address) = stopped.at {
            let place = place.as_ref();
            let place = place.map(|place| format!("{}:{}", place.file, place.line));
            let there = self.stored.entry((choice.cpu, address)).or_default();
            there.extend(self.plot.next().map(|at| (at, place.unwrap_or_default())));
        }
        let (words, writes) = match stopped.at {
            Stop::Access(Kind::IrqsOff | Kind::Fence, _) => (Vec::new(), false),
            Stop::Access(kind, word) => (vec![names.accessed(specimen, word)], kind != Kind::Load),
            _ => {
                let watched = stopped.watched().map(|word| names.watched(specimen, word));
                (watched.collect(), false)
            }
        };
        let described = specimen.describe(stopped.at);
        let what = match (stopped.at, &words[..]) {
            (
                Stop::Access(..),
                [
                    Word {
                        address,
                        name: Some(name),
                    },
                ],
            ) => described.replace(&format!("{address:#x}"), name),
            _ => described,
        };
        self.plot.add(Beat {
            what,
            place: place.as_ref().map_or_else(String::new, |place| {
                format!("{}:{}", place.file, place.line)
            }),
            function: place.map_or_else(String::new, |place| readable(&place.function)),
            in_handler: stopped.in_handler,
            words,
            writes,
            flushed,
            sends: match stopped.at {
                Stop::Send { target, signal } => Some(Ipi { target, signal }),
                _ => None,
            },
        });
    }

    /// The line in the guest's source at which `cpu` has stopped.
    pub(super) fn place(&self, specimen: &Specimen, cpu: usize) -> Option<SourceLine> {
        place::of(specimen, &self.source, &self.shown, cpu)
    }

    /// The guest's name for an interrupt, or else its number.
    pub(super) fn interrupt(&self, vector: u8) -> String {
        vectors::name(&self.vectors, vector)
    }

    /// The whole story, after the last stop.
    pub fn tell(self, cpus: usize, breach: Option<&Breach>) -> Story {
        Story {
            cpus,
            scenes: self.plot.scenes,
            breaks: breach.map_or_else(Vec::new, |breach| breach.names.clone()),
            texts: breach.map_or_else(Vec::new, |breach| breach.texts.clone()),
            marks: Vec::new(),
            vectors: self.vectors,
        }
    }
}

/// Replays a schedule, and makes its story. `on_replay` is told how many replays have been made.
///
/// # Errors
/// As [`super::replay`].
pub fn tell(
    replay: &super::Replay<'_>,
    interrupted: impl Fn() -> bool + Send + Sync + 'static,
    on_replay: &mut dyn FnMut(u64),
) -> Result<(super::Replayed, Story), ExploreError> {
    let image = replay.guest.open()?;
    let mut story_builder = StoryBuilder::new(&image);
    let on_stop: &mut OnStop<'_> =
        &mut |specimen, choice, turn| story_builder.hear(specimen, choice, turn);
    let replayed = super::replay(replay, interrupted, on_stop, on_replay)?;
    let breach = (replayed.last.as_ref()).and_then(|followed| followed.breach.clone());
    let cpus = super::replay::case_of(replay.schedule)?.cpus as usize;
    let mut story = story_builder.tell(cpus, breach.as_ref());
    // The point of no return was found for this order on this image, and holds for no other.
    let is_same = replayed.other.is_none() && replayed.same_image;
    if let (true, Some(point)) = (is_same, &replay.schedule.point_of_no_return) {
        story.mark(point);
    }
    Ok((replayed, story))
}

impl Story {
    /// Marks `point`, if its step is in the story.
    pub fn mark(&mut self, point: &PointOfNoReturn) {
        let Some((at, does)) = self.step(point.step) else {
            return;
        };
        let claim = match point.claim {
            Claim::Every => "every order breaks from here on".to_owned(),
            Claim::NoneOf { ways } => format!("no way out from here on was found in {ways} tries"),
        };
        let text = if point.at_beginning {
            format!("point of no return: the beginning; {claim}")
        } else {
            format!("point of no return: {does}; {claim}")
        };
        self.marks = vec![Mark { at, text }];
        if let Some((at, does)) = point.meets.and_then(|step| self.step(step)) {
            let cpu = self.scenes[at.scene].cpu;
            let text = format!("CPU {cpu} meets what was changed: {does}");
            self.marks.push(Mark { at, text });
        }
    }

    /// The beat at which `step` ends, and in words what its CPU does in the step.
    fn step(&self, step: Step) -> Option<(At, String)> {
        let at = At {
            scene: step.turn,
            beat: step.stop,
        };
        let scene = self.scenes.get(at.scene)?;
        let flushed = &scene.beats.get(at.beat)?.flushed;
        if !flushed.is_empty() {
            let all = flushed.iter().map(|it| match &*it.place {
                "" => it.what.clone(),
                place => format!("{}, {place}", it.what),
            });
            let all: Vec<_> = all.collect();
            return Some((at, format!("flush {}", all.join(", "))));
        }
        let before = match at.beat.checked_sub(1) {
            Some(before) => scene.beats.get(before),
            None => {
                if let Some(signal) = scene.takes {
                    return Some((at, format!("takes {}", signal.name(&self.vectors))));
                }
                let earlier = self.scenes[..at.scene].iter().rev();
                let mut own = earlier.filter(|other| other.cpu == scene.cpu);
                own.next().and_then(|scene| scene.beats.last())
            }
        };
        let does = before.map_or_else(String::new, |beat| match &*beat.place {
            "" => beat.what.clone(),
            place => format!("{}, {place}", beat.what),
        });
        Some((at, does))
    }

    /// The interrupts of `scene`, in words: the one that its CPU takes, and those that it sends.
    pub fn traffic(&self, scene: &Scene) -> String {
        scene.traffic(&self.vectors)
    }

    /// The columns of all CPUs in one line, with `mark` in that of `cpu`.
    fn lanes(&self, cpu: usize, mark: &str) -> String {
        let lane = |lane| if lane == cpu { mark } else { " │ " };
        (0..self.cpus).map(lane).collect()
    }
}

impl Scene {
    /// As [`Story::traffic`], with the names in `vectors`.
    fn traffic(&self, vectors: &[manifest::Vector]) -> String {
        let takes = self
            .takes
            .map(|signal| format!("takes {}", signal.name(vectors)));
        let mut sent: Vec<(Signal, Vec<String>)> = Vec::new();
        for Ipi { target, signal } in self.beats.iter().filter_map(|beat| beat.sends) {
            match sent.iter_mut().find(|(known, _)| *known == signal) {
                Some((_, targets)) => targets.push(target.to_string()),
                None => sent.push((signal, vec![target.to_string()])),
            }
        }
        let sends = sent.iter().map(|(signal, targets)| {
            format!("sends {} to {}", signal.name(vectors), targets.join(","))
        });
        let first = self.beats.first().filter(|_| self.flushes);
        let flushes = first.map(|beat| {
            let all: Vec<_> = beat.flushed.iter().map(|it| &*it.what).collect();
            format!("flushes {}", all.join(", "))
        });
        (takes.into_iter())
            .chain(flushes)
            .chain(sends)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// A space-time diagram in text. Time runs down, and each CPU has a column. Beside each turn are
/// the interrupts that are taken and sent in it, the number of its stops, and what its CPU is about
/// to do at the end of the turn.
impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic: Vec<_> = self.scenes.iter().map(|it| self.traffic(it)).collect();
        let ends = self.scenes.iter().map(|scene| scene.beats.last());
        let ends: Vec<_> = ends
            .map(|end| end.map_or(("", ""), |beat| (&*beat.what, &*beat.place)))
            .collect();
        let widest = |texts: &mut dyn Iterator<Item = &str>| {
            texts.map(|text| text.chars().count()).max().unwrap_or(0)
        };
        let passing = widest(&mut traffic.iter().map(String::as_str));
        let doing = widest(&mut ends.iter().map(|(what, _)| *what));
        let name = |cpu: usize| format!("{cpu:^3}");
        let header: String = (0..self.cpus).map(name).collect();
        writeln!(f, "{:>4}  {header}  {:passing$}  stops  up to", "CPU", "")?;
        for (number, ((scene, traffic), (what, place))) in
            (1..).zip(self.scenes.iter().zip(&traffic).zip(&ends))
        {
            let lanes = self.lanes(scene.cpu, " ● ");
            let stops = scene.beats.len();
            let line = format!(
                "{number:>4}  {lanes}  {traffic:passing$}  {stops:>5}  {what:doing$}  {place}"
            );
            writeln!(f, "{}", line.trim_end())?;
            let marks = self.marks.iter().zip([" ◆ ", " ◇ "]);
            for (Mark { at, text }, mark) in marks.filter(|(mark, _)| mark.at.scene + 1 == number) {
                let (lanes, stop) = (self.lanes(scene.cpu, mark), at.beat + 1);
                writeln!(f, "      {lanes}  on the way to stop {stop}: {text}")?;
            }
        }
        let mark = match self.breaks == Breach::names_of_reached() {
            true => " ✓ ",
            false => " × ",
        };
        for text in &self.texts {
            writeln!(f, "      {}  {text}", mark.repeat(self.cpus))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::manifest::VectorRole;

    fn beat(what: &str, place: &str, sends: Option<(usize, u8)>) -> Beat {
        Beat {
            what: what.to_owned(),
            place: place.to_owned(),
            function: String::new(),
            in_handler: false,
            words: Vec::new(),
            writes: false,
            sends: sends.map(|(target, vector)| Ipi {
                target,
                signal: Signal::Interrupt(vector),
            }),
            flushed: Vec::new(),
        }
    }

    /// The stops of a turn. Each is the IPI that is about to be sent there, if any.
    type Stops<'a> = &'a [Option<(usize, u8)>];

    /// The scenes of turns. Each turn is given by its CPU, the interrupt it takes, and its stops.
    fn plot(turns: &[(usize, Option<u8>, Stops<'_>)]) -> Vec<Scene> {
        let mut plot = Plot::default();
        for (cpu, takes, stops) in turns {
            let choice = match takes {
                Some(vector) => Choice::take(*cpu, *vector),
                None => Choice::go_on(*cpu),
            };
            plot.begin(choice, Stop::Relax);
            for sends in *stops {
                plot.add(beat("", "", *sends));
            }
        }
        plot.scenes
    }

    #[test]
    fn an_interrupt_knows_every_ipi_it_answers() {
        let send = Some((1, 0xfc));
        let scenes = plot(&[
            (0, Some(0xfd), &[None, send, None]),
            (2, None, &[send, None]),
            (1, Some(0xfc), &[None]),
            (0, None, &[send, Some((1, 0xfb)), None]),
            (1, Some(0xfc), &[None]),
        ]);
        let at = |scene, beat| At { scene, beat };
        assert_eq!(scenes[0].sent_by, [], "pending from the beginning");
        assert_eq!(scenes[2].sent_by, [at(0, 1), at(1, 0)]);
        assert_eq!(
            scenes[4].sent_by,
            [at(3, 0)],
            "not those that were answered"
        );
    }

    #[test]
    fn an_ipi_leaves_when_its_sender_goes_on() {
        let scenes = plot(&[
            (0, None, &[None, Some((1, 0xfc))]),
            (1, Some(0xfc), &[None]),
            (0, None, &[None]),
            (1, Some(0xfc), &[None]),
        ]);
        assert_eq!(scenes[1].sent_by, [], "it was pending before");
        assert_eq!(scenes[3].sent_by, [At { scene: 0, beat: 1 }]);
    }

    /// A story of turns. Each turn is given by its CPU, the interrupt it takes, and its stops.
    fn told(turns: &[(usize, Option<u8>, &[&str])]) -> Story {
        let scenes = turns.iter().map(|(cpu, takes, stops)| Scene {
            cpu: *cpu,
            takes: takes.map(Signal::Interrupt),
            flushes: false,
            sent_by: Vec::new(),
            beats: stops
                .iter()
                .map(|what| beat(what, "a.rs:1", None))
                .collect(),
        });
        Story {
            cpus: 2,
            scenes: scenes.collect(),
            breaks: Vec::new(),
            texts: Vec::new(),
            marks: Vec::new(),
            vectors: vec![named(0xfc, "many")],
        }
    }

    fn named(number: u8, name: &str) -> manifest::Vector {
        manifest::Vector {
            number,
            name: name.to_owned(),
            role: VectorRole::Call,
            about: String::new(),
        }
    }

    #[test]
    fn what_a_step_does_is_what_its_cpu_was_about_to_do() {
        let story = told(&[
            (0, None, &["load x", "store x"]),
            (1, Some(0xfc), &["load y"]),
            (0, None, &["idle"]),
        ]);
        let does = |turn, stop| story.step(Step { turn, stop }).map(|(_, does)| does);
        assert_eq!(does(0, 0).unwrap(), "", "it is not known what came before");
        assert_eq!(does(0, 1).unwrap(), "load x, a.rs:1");
        assert_eq!(does(1, 0).unwrap(), "takes many");
        assert_eq!(does(2, 0).unwrap(), "store x, a.rs:1", "turns ago");
        assert_eq!(does(2, 1), None);
        assert_eq!(does(usize::MAX, 0), None);
    }

    #[test]
    fn the_point_of_no_return_is_marked_behind_its_turn() {
        let mut story = told(&[
            (0, None, &["load x", "store x", "idle"]),
            (1, None, &["load x"]),
            (1, None, &["idle"]),
        ]);
        let mut point = PointOfNoReturn {
            step: Step { turn: 0, stop: 2 },
            cpu: 0,
            does: "store 0x1000".to_owned(),
            place: String::new(),
            claim: Claim::NoneOf { ways: 16 },
            at_beginning: false,
            meets: Some(Step { turn: 2, stop: 0 }),
        };
        story.mark(&point);
        let expected = "
 CPU   0  1     stops  up to
   1   ●  │         3  idle    a.rs:1
       ◆  │   on the way to stop 3: point of no return: store x, a.rs:1; no way out from here on was found in 16 tries
   2   │  ●         1  load x  a.rs:1
   3   │  ●         1  idle    a.rs:1
       │  ◇   on the way to stop 1: CPU 1 meets what was changed: load x, a.rs:1
";
        assert_eq!(format!("\n{story}"), expected);
        // A schedule that was written by hand can name any step.
        point.step.turn = 77;
        story.marks.clear();
        story.mark(&point);
        assert_eq!(story.marks, []);
    }

    #[test]
    fn in_text_each_turn_is_a_line_and_columns_are_aligned() {
        let scene = |cpu, takes: Option<u8>, beats| Scene {
            cpu,
            takes: takes.map(Signal::Interrupt),
            flushes: false,
            sent_by: Vec::new(),
            beats,
        };
        let story = Story {
            cpus: 3,
            scenes: vec![
                scene(
                    0,
                    Some(0xfd),
                    vec![
                        beat("send 0xfc to 1", "a.rs:1", Some((1, 0xfc))),
                        beat("send 0xfc to 2", "a.rs:1", Some((2, 0xfc))),
                        beat("load 0x1000", "a.rs:2", None),
                    ],
                ),
                scene(2, Some(0xfc), vec![beat("idle", "", None)]),
                scene(0, None, vec![beat("store 0x10008", "b.rs:30", None)]),
            ],
            breaks: vec!["lost".to_owned()],
            texts: vec!["call 0:0:1 was lost".to_owned()],
            marks: Vec::new(),
            vectors: vec![named(0xfc, "many"), named(0xfd, "wake")],
        };
        let expected = "
 CPU   0  1  2                                  stops  up to
   1   ●  │  │   takes wake, sends many to 1,2      3  load 0x1000    a.rs:2
   2   │  │  ●   takes many                         1  idle
   3   ●  │  │                                      1  store 0x10008  b.rs:30
       ×  ×  ×   call 0:0:1 was lost
";
        assert_eq!(format!("\n{story}"), expected);
    }
}
