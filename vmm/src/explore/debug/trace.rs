//! What is seen on the way through a step of a recording: its instructions, and which of them change what
//! is watched. A step is walked through once for that, and the state to which that leads is compared with
//! the one that was recorded. If it is another one on this host, or there is no end of instructions, the
//! step is taken as one piece.

use super::recording::{Position, Recording, RecordingError, Step};
use super::search::Watch;
use crate::explore::specimen::Paused;

/// Most instructions of one step that are told apart.
const MOST_INSTRUCTIONS: usize = 100_000;

/// What was seen on the way through a step.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    /// The address of each instruction, in order. At least one, which is where the step begins.
    pub rips: Vec<u64>,
    /// The instructions that have changed something that is watched.
    pub changes: Vec<(usize, Watch)>,
    /// Why the instructions are not told apart, if they are not.
    pub coarse: Option<String>,
}

impl Recording {
    /// From now on watches for these.
    pub(super) fn watch(&mut self, watches: Vec<Watch>) {
        for step in &mut self.steps {
            match &mut step.trace {
                // Nothing has to be looked at again for less.
                Some(trace) if watches.is_empty() => trace.changes.clear(),
                trace => *trace = None,
            }
        }
        self.watches = watches;
    }

    /// Why the instructions of step `number`, or of the one before it, are not told apart, if they are
    /// not.
    pub(super) fn coarse_around(&self, number: usize) -> Option<&str> {
        let around = self.steps.get(number.saturating_sub(1)..)?.iter().take(2);
        let traces = around.filter_map(|step| step.trace.as_ref());
        traces.filter_map(|trace| trace.coarse.as_deref()).next()
    }

    /// Why the instructions of a step are not told apart, of each of which they are not.
    ///
    /// # Errors
    /// As [`Recording::go_to`].
    pub(super) fn pieces(&mut self) -> Result<Vec<String>, RecordingError> {
        let at = self.at;
        let mut pieces = Vec::new();
        for number in 0..self.steps.len() {
            pieces.extend(self.trace(number)?.coarse.clone());
        }
        self.go_to(at)?;
        Ok(pieces)
    }

    /// What is seen on the way through step `number`, from 0. The machine can be elsewhere afterwards.
    ///
    /// # Errors
    /// As [`Recording::go_to`].
    pub(super) fn trace(&mut self, number: usize) -> Result<&Trace, RecordingError> {
        if self.steps[number].trace.is_none() {
            let trace = self.walk_through(number)?;
            self.steps[number].trace = Some(trace);
        }
        let trace = self.steps[number].trace.as_ref();
        trace.ok_or(RecordingError::Other(number + 1))
    }

    fn walk_through(&mut self, number: usize) -> Result<Trace, RecordingError> {
        self.go_to_stop(number)?;
        let Step {
            choice,
            executes,
            key,
            ..
        } = self.steps[number];
        let (watches, specimen) = (self.watches.clone(), &mut self.specimen);
        let values = |ram: &_| -> Vec<_> { watches.iter().map(|it| it.value(ram)).collect() };
        let at_stop = values(specimen.ram());
        let mut before = at_stop.clone();
        let mut rips = vec![specimen.cpus()[choice.cpu].rip()];
        let mut changes = Vec::new();
        self.is_there = false;
        let walked = specimen.walk(choice, &mut |ram, regs| {
            let now = values(ram);
            if let Some(regs) = regs {
                let pairs = before.iter().zip(&now).zip(&watches);
                let changed = pairs.filter(|((before, now), _)| before != now);
                changes.extend(changed.map(|(_, watch)| (rips.len() - 1, *watch)));
                rips.push(regs.rip);
            }
            before = now;
            rips.len() > MOST_INSTRUCTIONS
        })?;
        let is_same = walked.is_ok() && specimen.save().key() == key;
        if is_same {
            self.at = Position {
                step: number + 1,
                instruction: 0,
            };
            self.is_there = true;
        }
        let coarse = match walked {
            _ if !executes => None,
            Ok(_) if is_same => None,
            Ok(_) => Some(
                "walked through instruction by instruction, it leads to another state on this host"
                    .to_owned(),
            ),
            Err(Paused) => Some(format!("it has more than {MOST_INSTRUCTIONS} instructions")),
        };
        let coarse = coarse.map(|why| format!("step {} is one piece: {why}", number + 1));
        if coarse.is_some() {
            rips.truncate(1);
            changes.clear();
            self.go_to_stop(number + 1)?;
        }
        // What leaves a store buffer, and what was not seen between instructions.
        let after = values(self.specimen.ram());
        for ((before, after), watch) in at_stop.iter().zip(&after).zip(&watches) {
            let is_known = changes.iter().any(|(_, known)| known == watch);
            if before != after && !is_known {
                changes.push((rips.len() - 1, *watch));
            }
        }
        Ok(Trace {
            rips,
            changes,
            coarse,
        })
    }
}
