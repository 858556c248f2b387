//! A schedule as people read it: turn by turn, what each CPU came to and where that stands in the source. Made by
//! following the schedule once.

use std::fmt;

use serde::Serialize;

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
}

/// One CPU's turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scene {
    /// The CPU.
    pub cpu: usize,
    /// The interrupt that it takes at first.
    pub takes: Option<u8>,
    /// What it comes to, in order.
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
    scenes: Vec<Scene>,
    turn: Option<usize>,
}

/// Files of the guest in which nobody wants to stand: they are what everything else goes through.
const UNDERNEATH: [&str; 3] = ["/sync/", "/metal/", "/probe.rs"];

impl<'a> Teller<'a> {
    /// One that knows the source of `image`.
    pub fn new(image: &'a Image) -> Self {
        Self {
            source: Source::read(image.bytes()),
            scenes: Vec::new(),
            turn: None,
        }
    }

    /// Is shown a stop.
    pub fn hear(&mut self, specimen: &Specimen, choice: Choice, turn: usize) {
        if self.turn != Some(turn) {
            self.turn = Some(turn);
            self.scenes.push(Scene {
                cpu: choice.cpu,
                takes: choice.takes,
                beats: Vec::new(),
            });
        }
        let at = specimen.cpus()[choice.cpu].at;
        let place = self.place(specimen, choice.cpu);
        let beat = Beat {
            what: specimen.describe(at),
            place: place.as_ref().map_or_else(String::new, |place| {
                format!("{}:{}", place.file, place.line)
            }),
            function: place.map_or_else(String::new, |place| place.function),
        };
        if let Some(scene) = self.scenes.last_mut() {
            scene.beats.push(beat);
        }
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
            scenes: self.scenes,
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

/// A space-time diagram in text: time runs down, a column for each CPU, and beside it what the turn came to.
impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |cpu: usize| format!("{cpu:^3}");
        let header: String = (0..self.cpus).map(name).collect();
        writeln!(f, "{:>4}  {header}", "CPU")?;
        for (number, scene) in (1..).zip(&self.scenes) {
            let lanes: String = (0..self.cpus)
                .map(|cpu| if cpu == scene.cpu { " ● " } else { " │ " })
                .collect();
            let takes = match scene.takes {
                Some(vector) => format!("takes {}, ", interrupt(vector)),
                None => String::new(),
            };
            let end = scene.beats.last();
            let what = end.map_or("", |beat| &*beat.what);
            let place = end.map_or("", |beat| &*beat.place);
            let stops = match scene.beats.len() {
                1 => String::new(),
                count => format!(" ({count} stops)"),
            };
            writeln!(
                f,
                "{number:>4}  {lanes}  CPU {} {takes}up to: {what}{stops}  {place}",
                scene.cpu
            )?;
        }
        for text in &self.texts {
            writeln!(f, "      {}  {text}", " × ".repeat(self.cpus))?;
        }
        Ok(())
    }
}

/// An interrupt by what it is for.
pub fn interrupt(vector: u8) -> String {
    match vector {
        0xfb => "single".to_owned(),
        0xfc => "many".to_owned(),
        0xfd => "wake".to_owned(),
        other => format!("{other:#x}"),
    }
}
