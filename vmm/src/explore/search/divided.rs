//! What the workers of a depth-first search divide among them: the parts that are left to do, and
//! beside them what they know together. It can be written, and read again by another process.
//! Makes steps only to get back to where a part begins.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::checkpoint::{self, Checkpoint, Phase, PlaceRecord, read_value, unreadable, unusable};
use super::checkpoint::{Resumable, write_value};
use super::dfs::Cut;
use super::engine::Engine;
use super::frontier::KnownToAll;
use super::parts::Task;
use super::seen::{Kept, Seen};
use super::tasks::Tasks;
use super::workers::Together;
use crate::explore::schedule::Choice;
use crate::explore::specimen::State;

/// What a visitor keeps, as far as it can be checked when it is read.
pub trait Refers {
    /// The choices that it speaks of, all of one state, and the numbers of states.
    fn refers(&self) -> (Vec<Choice>, Vec<u32>);
}

/// A task, in its form in a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct TaskRecord<D, S> {
    place: PlaceRecord,
    data: Vec<Option<D>>,
    by: Option<(Choice, S)>,
}

impl<'a, D, S> TaskRecord<&'a D, &'a S> {
    fn of(task: &'a Task<D, S>) -> Self {
        Self {
            place: PlaceRecord::of(&task.root),
            data: task.data.iter().map(Option::as_ref).collect(),
            by: task.by.as_ref().map(|(choice, step)| (*choice, step)),
        }
    }
}

/// What the workers of a depth-first search have together: what they have seen, of each state with
/// a value of type `V`, and the parts that are left.
#[derive(Debug)]
pub struct Divided<V: Kept, D, S> {
    phase: Phase,
    /// The states that they have seen.
    pub seen: Seen<V>,
    /// Of a shard: the states that all shards know.
    pub known: KnownToAll,
    /// The parts that are left.
    pub tasks: Tasks<Task<D, S>>,
    /// Whether it was read from a checkpoint.
    pub is_resumed: bool,
}

impl<V: Kept, D, S> Divided<V, D, S> {
    /// For this number of workers, who begin with `tasks`.
    pub fn new(
        phase: Phase,
        (seen, known): (Seen<V>, KnownToAll),
        workers: usize,
        tasks: impl IntoIterator<Item = Task<D, S>>,
    ) -> Self {
        Self {
            phase,
            seen,
            known,
            tasks: Tasks::new(workers, tasks),
            is_resumed: false,
        }
    }
}

impl<V, D, S> Divided<V, D, S>
where
    V: Kept,
    D: DeserializeOwned + Refers,
    S: DeserializeOwned + Refers,
{
    /// Has `engine` and this number of workers go on with a search that was kept.
    ///
    /// # Errors
    /// [`Cut`] if it is of another search.
    pub fn resume(
        phase: Phase,
        kept: Checkpoint,
        engine: &mut Engine<'_>,
        workers: usize,
    ) -> Result<Self, Cut> {
        let rest = &mut kept.begin(engine, phase)?;
        let seen = Seen::read(rest, &engine.limits.storage).map_err(|error| unreadable(&error))?;
        let (known, records) = Self::read_tasks(rest).map_err(|error| unreadable(&error))?;
        let mut tasks = Vec::new();
        for TaskRecord { place, data, by } in records {
            let root = place.follow(engine)?;
            if data.len() > root.states.len() {
                return Err(unusable());
            }
            let mut fits = |state: &State, (choices, numbers): (Vec<Choice>, Vec<u32>)| {
                engine.system.load(state);
                let there = engine.system.choices();
                choices.iter().all(|it| there.contains(it))
                    && numbers.into_iter().all(|it| seen.has_number(it))
            };
            for (state, data) in root.states.iter().zip(&data) {
                if let Some(data) = data
                    && !fits(state, data.refers())
                {
                    return Err(unusable());
                }
            }
            if let Some((choice, step)) = &by {
                let (_, numbers) = step.refers();
                if !fits(root.state(), (vec![*choice], numbers)) {
                    return Err(unusable());
                }
            }
            tasks.push(Task { root, data, by });
        }
        checkpoint::check_resumed(engine)?;
        Ok(Self {
            is_resumed: true,
            ..Self::new(phase, (seen, known), workers, tasks)
        })
    }

    fn read_tasks(from: &mut dyn Read) -> io::Result<(KnownToAll, Vec<TaskRecord<D, S>>)> {
        Ok((read_value(from)?, read_value(from)?))
    }
}

impl<V, D, S> Together for Divided<V, D, S>
where
    V: Kept,
    D: Serialize + Send,
    S: Serialize + Send,
{
    fn end(&self) {
        self.tasks.end();
    }

    fn resumable(&mut self) -> Option<&mut dyn Resumable> {
        Some(self)
    }
}

impl<V: Kept, D: Serialize, S: Serialize> Resumable for Divided<V, D, S> {
    fn go_on(&mut self) {
        self.tasks.go_on();
    }

    fn phase(&self) -> Phase {
        self.phase
    }

    fn is_whole(&self) -> bool {
        self.tasks.are_whole()
    }

    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        self.seen.write(to)?;
        write_value(to, &self.known)?;
        self.tasks.with(|tasks| {
            let records = tasks.iter().map(TaskRecord::of);
            write_value(to, &records.collect::<Vec<_>>())
        })
    }
}
