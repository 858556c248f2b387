//! A schedule as people read it: turn by turn, what each CPU came to and where that stands in the source. Made by
//! following the schedule once.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use shared::stop::Kind;

use super::ExploreError;
use super::retrace::OnStop;
use super::schedule::Choice;
use super::specimen::{Specimen, Stop};
use crate::machine::image::Image;
use crate::machine::source::{Place, Source};

/// What a CPU came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Beat {
    /// What it is about to do.
    pub what: String,
    /// Where that stands, as `file:line`; empty if it is not known.
    pub place: String,
    /// In which function.
    pub function: String,
    /// Whether a handler is about to do it, and not the CPU's task.
    pub in_handler: bool,
    /// Addresses of the words that it is about to access, or waits to see changed.
    pub words: Vec<u64>,
    /// Whether it changes them.
    pub writes: bool,
    /// The IPI that is about to leave, if one is.
    pub sends: Option<Ipi>,
}

/// An IPI on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Ipi {
    /// To which CPU.
    pub target: usize,
    /// Which.
    pub vector: u8,
}

/// A beat by its place in a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct At {
    /// Which scene, from 0.
    pub scene: usize,
    /// Which of its beats, from 0.
    pub beat: usize,
}

/// One CPU's turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scene {
    /// The CPU.
    pub cpu: usize,
    /// The interrupt that it takes at first.
    pub takes: Option<u8>,
    /// The beats that sent it: several if it was sent again while it was pending, none if it was so from the
    /// beginning.
    pub sent_by: Vec<At>,
    /// What it comes to, in order. The last is where it stands when others go on.
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
    /// Sentences about that.
    pub texts: Vec<String>,
}

/// Listens to a schedule that is followed, and tells it.
#[derive(Debug)]
pub struct Teller<'a> {
    source: Source<'a>,
    turn: Option<usize>,
    plot: Plot,
}

/// The scenes as they become, and the IPIs between them.
#[derive(Debug, Default)]
struct Plot {
    scenes: Vec<Scene>,
    /// By CPU: the IPI before which it stands, and where. It leaves when that CPU goes on.
    leaving: HashMap<usize, (Ipi, At)>,
    /// Those that have left and are pending, and who sent them.
    pending: HashMap<Ipi, Vec<At>>,
}

impl Plot {
    fn begin(&mut self, choice: Choice) {
        let Choice { cpu, takes } = choice;
        let taken = takes.map(|vector| Ipi {
            target: cpu,
            vector,
        });
        let sent_by = taken.and_then(|ipi| self.pending.remove(&ipi));
        self.scenes.push(Scene {
            cpu,
            takes,
            sent_by: sent_by.unwrap_or_default(),
            beats: Vec::new(),
        });
    }

    /// Adds a beat to the scene that was begun last.
    fn add(&mut self, beat: Beat) {
        let Some((number, scene)) = self.scenes.iter_mut().enumerate().last() else {
            return;
        };
        if let Some((ipi, at)) = self.leaving.remove(&scene.cpu) {
            self.pending.entry(ipi).or_default().push(at);
        }
        if let Some(ipi) = beat.sends {
            let at = At {
                scene: number,
                beat: scene.beats.len(),
            };
            self.leaving.insert(scene.cpu, (ipi, at));
        }
        scene.beats.push(beat);
    }
}

/// Files of the guest in which nobody wants to stand: they are what everything else goes through.
const UNDERNEATH: [&str; 3] = ["/sync/", "/metal/", "/probe.rs"];

impl<'a> Teller<'a> {
    /// One that knows the source of `image`.
    pub fn new(image: &'a Image) -> Self {
        Self {
            source: Source::read(image.bytes()),
            turn: None,
            plot: Plot::default(),
        }
    }

    /// Is shown a stop.
    pub fn hear(&mut self, specimen: &Specimen, choice: Choice, turn: usize) {
        if self.turn != Some(turn) {
            self.turn = Some(turn);
            self.plot.begin(choice);
        }
        let stopped = &specimen.cpus()[choice.cpu];
        let place = self.place(specimen, choice.cpu);
        let (words, writes) = match stopped.at {
            Stop::Access(Kind::IrqsOff, _) => (Vec::new(), false),
            Stop::Access(kind, word) => (vec![word], kind != Kind::Load),
            _ => (stopped.watched().collect(), false),
        };
        self.plot.add(Beat {
            what: specimen.describe(stopped.at),
            place: place.as_ref().map_or_else(String::new, |place| {
                format!("{}:{}", place.file, place.line)
            }),
            function: place.map_or_else(String::new, |place| place.function),
            in_handler: stopped.in_handler,
            words,
            writes,
            sends: match stopped.at {
                Stop::Send { target, vector } => Some(Ipi { target, vector }),
                _ => None,
            },
        });
    }

    /// Where `cpu` stands in the guest's source.
    fn place(&self, specimen: &Specimen, cpu: usize) -> Option<Place> {
        let stopped = &specimen.cpus()[cpu];
        if matches!(stopped.at, Stop::Idle | Stop::Left) {
            return None;
        }
        let addresses = match stopped.at {
            Stop::Instruction(rip) => vec![rip],
            // A return address is behind the call.
            _ => specimen
                .callers(cpu)
                .iter()
                .map(|it| it.wrapping_sub(1))
                .collect(),
        };
        let places = addresses
            .iter()
            .flat_map(|address| self.source.places(*address));
        places
            .filter_map(|place| {
                let start = place.file.find("guest/src/")?;
                let file = place.file[start..].to_owned();
                (!UNDERNEATH.iter().any(|under| file.contains(under)))
                    .then_some(Place { file, ..place })
            })
            .next()
    }

    /// The whole story, of which this is the end.
    pub fn tell(self, cpus: usize, breach: Option<&super::specimen::Breach>) -> Story {
        Story {
            cpus,
            scenes: self.plot.scenes,
            breaks: breach.map_or_else(Vec::new, |breach| breach.names.clone()),
            texts: breach.map_or_else(Vec::new, |breach| breach.texts.clone()),
        }
    }
}

/// Tells `schedule`, on the image in `guest`.
///
/// # Errors
/// As [`super::replay`].
pub fn tell(
    replay: &super::Replay<'_>,
    interrupted: fn() -> bool,
) -> Result<(super::Replayed, Story), ExploreError> {
    let image = Image::open(replay.guest)?;
    let mut teller = Teller::new(&image);
    let on_stop: &mut OnStop<'_> =
        &mut |specimen, choice, turn| teller.hear(specimen, choice, turn);
    let replayed = super::replay(replay, interrupted, on_stop)?;
    let breach = (replayed.last.as_ref()).and_then(|followed| followed.breach.clone());
    let cpus = super::case::Case::parse(&replay.schedule.case)?.cpus as usize;
    let story = teller.tell(cpus, breach.as_ref());
    Ok((replayed, story))
}

impl Scene {
    /// What comes and what goes, in words: the interrupt that it takes, and those that it sends.
    pub fn traffic(&self) -> String {
        let takes = self
            .takes
            .map(|vector| format!("takes {}", interrupt(vector)));
        let mut sent: Vec<(u8, Vec<String>)> = Vec::new();
        for Ipi { target, vector } in self.beats.iter().filter_map(|beat| beat.sends) {
            match sent.iter_mut().find(|(known, _)| *known == vector) {
                Some((_, targets)) => targets.push(target.to_string()),
                None => sent.push((vector, vec![target.to_string()])),
            }
        }
        let sends = sent.iter().map(|(vector, targets)| {
            format!("sends {} to {}", interrupt(*vector), targets.join(","))
        });
        takes
            .into_iter()
            .chain(sends)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// A space-time diagram in text: time runs down, a column for each CPU, and beside it what comes and goes in the
/// turn, how many stops it has, and what its CPU is about to do when others go on.
impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic: Vec<_> = self.scenes.iter().map(Scene::traffic).collect();
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
            let lanes: String = (0..self.cpus)
                .map(|cpu| if cpu == scene.cpu { " ● " } else { " │ " })
                .collect();
            let stops = scene.beats.len();
            let line = format!(
                "{number:>4}  {lanes}  {traffic:passing$}  {stops:>5}  {what:doing$}  {place}"
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        for text in &self.texts {
            writeln!(f, "      {}  {text}", " × ".repeat(self.cpus))?;
        }
        Ok(())
    }
}

/// An interrupt by what it is for.
fn interrupt(vector: u8) -> String {
    match vector {
        0xfb => "single".to_owned(),
        0xfc => "many".to_owned(),
        0xfd => "wake".to_owned(),
        other => format!("{other:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(what: &str, place: &str, sends: Option<(usize, u8)>) -> Beat {
        Beat {
            what: what.to_owned(),
            place: place.to_owned(),
            function: String::new(),
            in_handler: false,
            words: Vec::new(),
            writes: false,
            sends: sends.map(|(target, vector)| Ipi { target, vector }),
        }
    }

    /// The stops of a turn, by the IPIs before which they are.
    type Stops<'a> = &'a [Option<(usize, u8)>];

    /// What comes of turns, each of a CPU, the interrupt it takes, and its stops.
    fn plot(turns: &[(usize, Option<u8>, Stops<'_>)]) -> Vec<Scene> {
        let mut plot = Plot::default();
        for (cpu, takes, stops) in turns {
            plot.begin(Choice {
                cpu: *cpu,
                takes: *takes,
            });
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

    #[test]
    fn in_text_each_turn_is_a_line_and_columns_are_aligned() {
        let scene = |cpu, takes, beats| Scene {
            cpu,
            takes,
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
