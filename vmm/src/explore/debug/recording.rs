//! A schedule as a recording: its positions, and a machine that is put to any of them. A position is a
//! stop of the explorer, and behind it the instructions that the CPU of the next step has executed. The
//! machine goes there from the nearest kept state before. What it comes to is compared with what was
//! recorded, so that no position is ever another than it was before.

use std::collections::HashMap;

use kvm_bindings::kvm_regs;

use super::search::Watch;
use super::trace::Trace;
use crate::explore::errors::ExploreError;
use crate::explore::replay::{Ready, Replay, ready, without_states};
use crate::explore::retrace::{begin, follow};
use crate::explore::schedule::Choice;
use crate::explore::specimen::{Breach, Paused, Specimen, SpecimenError, State};
use crate::explore::story::{Story, StoryBuilder};
use crate::explore::until::Until;
use crate::machine::debugged::Debugged;

/// Most states that are kept.
const MOST_KEPT: usize = 2048;

/// A position of a recording.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The number of stops that the CPUs have come to.
    pub step: usize,
    /// The number of instructions of the next step that have been executed.
    pub instruction: usize,
}

/// Why the machine is not at the position to which it was to be put.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The host, a signal, or a time limit.
    #[error(transparent)]
    Specimen(#[from] SpecimenError),
    /// The same steps led to another state.
    #[error(
        "step {0} of the recording led to another state than before, so that nothing behind it can \
         be shown; replay the schedule without --gdb to see whether it still holds"
    )]
    Other(usize),
}

/// A step of the recording: what a CPU does from one stop to the next.
#[derive(Debug)]
pub(super) struct Step {
    /// The turn, from 0.
    pub turn: usize,
    /// The stop within the turn, from 0.
    pub stop: usize,
    /// What begins it.
    pub choice: Choice,
    /// Whether its CPU executes instructions in it.
    pub executes: bool,
    /// The key of the state to which it leads.
    pub key: u128,
    /// What was seen on the way, once somebody has looked.
    pub trace: Option<Trace>,
}

/// A recording.
#[derive(Debug)]
pub struct Recording {
    pub(super) specimen: Specimen,
    pub(super) steps: Vec<Step>,
    /// Every so many steps a state, from the beginning on.
    kept: Vec<State>,
    /// How many steps lie between two kept states.
    stride: usize,
    pub(super) at: Position,
    /// Whether the machine is in the state of `at`. It is not after an error.
    pub(super) is_there: bool,
    /// The hash of memory, and the registers of the CPU that goes, at positions between two instructions that
    /// were visited.
    visited: HashMap<Position, (u128, Option<kvm_regs>)>,
    /// What is watched for.
    pub(super) watches: Vec<Watch>,
    breach: Option<Breach>,
    story: Story,
}

impl Recording {
    /// Boots a machine for the schedule of `replay`, and records it.
    ///
    /// # Errors
    /// [`ExploreError`] if the schedule cannot be replayed.
    pub fn make(
        replay: &Replay<'_>,
        interrupted: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self, ExploreError> {
        let image = replay.guest.open()?;
        let until = Until::new(interrupted, replay.time);
        let Ready {
            mut specimen,
            compared_states,
            ..
        } = ready(replay, &image, until)?;
        let schedule = replay.schedule;
        // Which pages belong to a state is known only once they have been written.
        let again = ExploreError::NotAgain;
        let plain = without_states(&schedule.turns);
        follow(&mut specimen, &plain, &mut |_, _, _| {})?.map_err(again)?;
        let turns = match compared_states {
            true => &schedule.turns,
            false => &plain,
        };
        let mut told = StoryBuilder::new(&image);
        let followed = follow(&mut specimen, turns, &mut |specimen, choice, turn| {
            told.hear(specimen, choice, turn);
        })?
        .map_err(again)?;
        let mut story = told.tell(specimen.cpus().len(), followed.breach.as_ref());
        if let (true, Some(point)) = (compared_states, &schedule.point_of_no_return) {
            story.mark(point);
        }
        begin(&mut specimen)?;
        let stops: usize = turns.iter().map(|turn| turn.stops as usize).sum();
        let mut recording = Self {
            kept: vec![specimen.save()],
            specimen,
            steps: Vec::with_capacity(stops),
            stride: stops.div_ceil(MOST_KEPT).max(1),
            at: Position::default(),
            is_there: true,
            visited: HashMap::new(),
            watches: Vec::new(),
            breach: followed.breach,
            story,
        };
        for (number, turn) in turns.iter().enumerate() {
            let mut choice = turn.choice();
            for stop in 0..turn.stops as usize {
                recording.record(number, stop, choice)?;
                choice = recording.specimen.going_on(choice.cpu);
            }
        }
        recording.at.step = recording.steps.len();
        Ok(recording)
    }

    /// Makes the step `choice`, and adds it.
    fn record(&mut self, turn: usize, stop: usize, choice: Choice) -> Result<(), SpecimenError> {
        let executes = self.specimen.executes(choice);
        self.specimen.follow(choice)?;
        self.specimen.keep_new_pages()?;
        let state = self.specimen.save();
        self.steps.push(Step {
            turn,
            stop,
            choice,
            executes,
            key: state.key(),
            trace: None,
        });
        if self.steps.len().is_multiple_of(self.stride) {
            self.kept.push(state);
        }
        Ok(())
    }

    /// The schedule in a form for people.
    pub fn story(&self) -> &Story {
        &self.story
    }

    /// The address of the word that has this name in [`Recording::story`].
    pub fn address(&self, name: &str) -> Option<u64> {
        let beats = self.story.scenes.iter().flat_map(|scene| &scene.beats);
        let mut words = beats.flat_map(|beat| &beat.words);
        let word = words.find(|word| word.name.as_deref() == Some(name));
        word.map(|word| word.address)
    }

    /// What breaks at the end.
    pub fn breach(&self) -> Option<&Breach> {
        self.breach.as_ref()
    }

    /// The number of CPUs.
    pub fn cpus(&self) -> u32 {
        u32::try_from(self.specimen.cpus().len()).unwrap_or(u32::MAX)
    }

    /// Where the machine is.
    pub fn position(&self) -> Position {
        self.at
    }

    /// The position behind the last step.
    pub fn end(&self) -> Position {
        Position {
            step: self.steps.len(),
            instruction: 0,
        }
    }

    /// The CPU that goes on at `at`; at the end, the one that went last.
    pub fn cpu_at(&self, at: Position) -> u32 {
        let step = self.steps.get(at.step).or_else(|| self.steps.last());
        step.map_or(0, |step| u32::try_from(step.choice.cpu).unwrap_or(u32::MAX))
    }

    /// The position at which a turn begins, which has this number from 0, or the position behind one of
    /// its stops.
    pub fn turn(&self, turn: usize, stops: usize) -> Option<Position> {
        let of_turn = |step: &Step| step.turn == turn;
        let first = self.steps.iter().position(of_turn)?;
        let length = self.steps.iter().filter(|step| of_turn(step)).count();
        (stops <= length).then_some(Position {
            step: first + stops,
            instruction: 0,
        })
    }

    /// The turn to which `at` belongs, and how many stops of it are before; none at the end.
    pub fn turn_at(&self, at: Position) -> Option<(usize, usize)> {
        let step = self.steps.get(at.step)?;
        Some((step.turn, step.stop))
    }

    /// What a CPU does at the stop at which it is, in words.
    pub fn stop_of(&self, cpu: u32) -> String {
        let before = &self.steps[..self.at.step];
        let mut own = before.iter().rev();
        let last = own.find(|step| step.choice.cpu == cpu as usize);
        let beat = last.and_then(|step| self.story.scenes.get(step.turn)?.beats.get(step.stop));
        match beat {
            Some(beat) => beat.what.clone(),
            None => {
                let stopped = self.specimen.cpus().get(cpu as usize);
                stopped.map_or_else(String::new, |it| self.specimen.describe(it.at))
            }
        }
    }

    /// Puts the machine to `at`.
    ///
    /// # Errors
    /// [`RecordingError`] if it does not come to what it came to before.
    pub fn go_to(&mut self, at: Position) -> Result<(), RecordingError> {
        if at == self.at && self.is_there {
            return Ok(());
        }
        if at.instruction > 0 {
            self.trace(at.step)?;
        }
        self.go_to_stop(at.step)?;
        if at.instruction == 0 {
            return Ok(());
        }
        self.is_there = false;
        let mut left = at.instruction;
        let mut last = None;
        let step = &self.steps[at.step];
        let paused = self.specimen.walk(step.choice, &mut |_, regs| {
            left -= usize::from(regs.is_some());
            last = regs.copied().or(last);
            left == 0
        })?;
        let wanted = step
            .trace
            .as_ref()
            .and_then(|it| it.rips.get(at.instruction));
        let here = (self.specimen.memory_hash(), last);
        let before = *self.visited.entry(at).or_insert(here);
        let rip = last.map(|regs| regs.rip);
        if paused != Err(Paused) || wanted.copied() != rip || here != before {
            return Err(RecordingError::Other(at.step + 1));
        }
        self.at = at;
        self.is_there = true;
        Ok(())
    }

    /// Puts the machine to the stop with which `number` steps end.
    pub(super) fn go_to_stop(&mut self, number: usize) -> Result<(), RecordingError> {
        let nearest = (number / self.stride).min(self.kept.len() - 1);
        let is_between = self.at.instruction > 0 || !self.is_there;
        let is_on_the_way = !is_between && (nearest * self.stride..=number).contains(&self.at.step);
        if !is_on_the_way {
            self.is_there = false;
            self.specimen.mend()?;
            self.specimen.load(&self.kept[nearest]);
            self.at = Position {
                step: nearest * self.stride,
                instruction: 0,
            };
        }
        self.is_there = false;
        while self.at.step < number {
            let step = &self.steps[self.at.step];
            self.specimen.follow(step.choice)?;
            self.at.step += 1;
            if self.specimen.save().key() != step.key {
                return Err(RecordingError::Other(self.at.step));
            }
        }
        self.is_there = true;
        Ok(())
    }

    /// Has `body` look at `cpu` where the machine is.
    ///
    /// # Errors
    /// [`SpecimenError`] if KVM does not show it as it was.
    pub(super) fn look<T>(
        &mut self,
        cpu: u32,
        body: impl FnOnce(&Debugged<'_>) -> T,
    ) -> Result<T, SpecimenError> {
        let is_walking = self.at.instruction > 0 && self.cpu_at(self.at) == cpu;
        let cpu = cpu as usize;
        let debugged = match is_walking {
            true => self.specimen.between_instructions(cpu),
            false => self.specimen.at_stop(cpu)?,
        };
        Ok(body(&debugged))
    }

    /// A hash of guest memory where the machine is, without counters and traces.
    pub fn memory_hash(&self) -> u128 {
        self.specimen.memory_hash()
    }

    /// Why to stop now, if a signal has arrived or the time is up.
    pub fn is_over(&self) -> bool {
        self.specimen.stop_reason().is_some()
    }
}
