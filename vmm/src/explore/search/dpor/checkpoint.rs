//! What the workers of a search with DPOR have together, in its form in a checkpoint, and back.
//! Makes steps only to get back to the states of the nodes.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::actions::{Action, ActionSet, Numbering};
use super::node::{Node, NodeProgress, Reached, Step};
use super::visited::Visited;
use super::{Common, Task};
use crate::explore::key::Key;
use crate::explore::schedule::{Choice, Turn};
use crate::explore::search::checkpoint::{
    Checkpoint, Phase, PlaceRecord, Resumable, check_resumed, make_again, read_value, unreadable,
    unusable, write_value,
};
use crate::explore::search::dfs::Cut;
use crate::explore::search::engine::Engine;
use crate::explore::search::storage::Storage;
use crate::explore::specimen::State;

/// A node that is open. Nodes are numbered such that each comes behind the one from which it was
/// reached.
#[derive(Debug, Serialize, Deserialize)]
struct NodeRecord {
    by: ReachedRecord,
    /// The key of its state.
    key: Key,
    choices: Vec<(Choice, usize)>,
    progress: NodeProgress<StepRecord>,
}

/// How a node was reached first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReachedRecord {
    /// The search begins there.
    Beginning(PlaceRecord),
    /// By a step from another node.
    By(StepRecord),
}

/// A step.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StepRecord {
    /// The number of the node.
    from: usize,
    action: usize,
    turn: Turn,
}

/// What a worker can begin with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TaskRecord {
    Begin(PlaceRecord),
    GoOn(usize),
}

/// The numbers of nodes.
struct Numbers(HashMap<*const Node, usize>);

impl Numbers {
    fn of(nodes: &[Arc<Node>]) -> Self {
        let numbered = nodes.iter().enumerate();
        Self(numbered.map(|(at, node)| (Arc::as_ptr(node), at)).collect())
    }

    fn number(&self, node: &Arc<Node>) -> Option<usize> {
        self.0.get(&Arc::as_ptr(node)).copied()
    }

    fn step(&self, step: &Step) -> StepRecord {
        StepRecord {
            from: (self.number(&step.from)).expect("what lies before an open node is open"),
            action: step.action,
            turn: step.turn.clone(),
        }
    }
}

impl Resumable for Common {
    fn go_on(&mut self) {
        self.tasks.go_on();
    }

    fn phase(&self) -> Phase {
        Phase::Races
    }

    fn is_whole(&self) -> bool {
        self.tasks.are_whole()
    }

    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        write_value(to, &self.numbering.all())?;
        self.visited.write(to)?;
        let mut nodes = self.visited.open_nodes();
        nodes.sort_by_key(|node| node.place);
        let numbers = Numbers::of(&nodes);
        let record = |node: &Arc<Node>| NodeRecord {
            by: match &node.by {
                Reached::Beginning(turns) => {
                    ReachedRecord::Beginning(PlaceRecord::new(turns, &node.state))
                }
                Reached::By(step) => ReachedRecord::By(numbers.step(step)),
            },
            key: Key(node.state.key()),
            choices: node.numbered_choices().to_vec(),
            progress: node.progress(|step| numbers.step(step)),
        };
        write_value(to, &nodes.iter().map(record).collect::<Vec<_>>())?;
        self.tasks.with(|tasks| {
            // A node that was closed in the meantime is of no use to whoever would take it.
            let record = |task: &Task| match task {
                Task::Begin(root) => Some(TaskRecord::Begin(PlaceRecord::of(root))),
                Task::GoOn(node) => numbers.number(node).map(TaskRecord::GoOn),
            };
            write_value(to, &tasks.iter().filter_map(record).collect::<Vec<_>>())
        })
    }
}

/// What was read of a search.
struct Records {
    actions: Vec<Action>,
    visited: Visited,
    nodes: Vec<NodeRecord>,
    tasks: Vec<TaskRecord>,
}

impl Records {
    fn read(from: &mut dyn Read, storage: &Arc<Storage>) -> io::Result<Self> {
        let actions: Vec<Action> = read_value(from)?;
        Ok(Self {
            visited: Visited::read(from, actions.len(), storage)?,
            actions,
            nodes: read_value(from)?,
            tasks: read_value(from)?,
        })
    }

    /// Whether all numbers of actions and nodes are of some that there are, and every node knows how
    /// many of the choices that were taken there are not all tried.
    fn agree(&self, cpus: usize) -> bool {
        let is_action = |action: usize| action < self.actions.len();
        let mut open = vec![0; self.nodes.len()];
        for (number, node) in self.nodes.iter().enumerate() {
            let mut steps: Vec<_> = node.progress.waiting.iter().collect();
            if let ReachedRecord::By(step) = &node.by {
                if step.from >= number {
                    return false;
                }
                steps.push(step);
            }
            for step in steps {
                match open.get_mut(step.from) {
                    Some(open) if is_action(step.action) => *open += 1,
                    _ => return false,
                }
            }
            let mut choices = node.choices.iter().chain(&node.progress.todo);
            let is_choice = |(choice, action): &(Choice, usize)| {
                is_action(*action) && self.actions[*action].cpu() == choice.cpu
            };
            let are_known = node
                .progress
                .todo
                .iter()
                .all(|it| node.choices.contains(it));
            if !choices.all(is_choice)
                || !are_known
                || node.progress.summary.end() > self.actions.len()
            {
                return false;
            }
        }
        let is_open = |(node, open): (&NodeRecord, usize)| node.progress.open == open;
        self.actions.iter().all(|action| action.cpu() < cpus)
            && self.nodes.iter().zip(open).all(is_open)
            && (self.tasks.iter()).all(|task| match task {
                TaskRecord::Begin(_) => true,
                TaskRecord::GoOn(number) => *number < self.nodes.len(),
            })
    }
}

/// Has `engine` and this number of workers go on with a search that was kept.
///
/// # Errors
/// [`Cut`] if it is of another search.
pub(super) fn resume(
    kept: Checkpoint,
    engine: &mut Engine<'_>,
    workers: usize,
) -> Result<Common, Cut> {
    let mut rest = kept.begin(engine, Phase::Races)?;
    let records = Records::read(&mut rest, &engine.limits.storage);
    let records = records.map_err(|error| unreadable(&error))?;
    if !records.agree(engine.system.cpus().len()) {
        return Err(unusable());
    }
    let Records {
        actions,
        visited,
        nodes,
        tasks,
    } = records;
    let mut restored: Vec<Arc<Node>> = Vec::new();
    let mut progress = Vec::new();
    for record in nodes {
        let (by, state) = reach(engine, &restored, record.by)?;
        let there = engine.system.choices();
        let choices = record.choices.iter().map(|(choice, _)| *choice);
        if state.key() != record.key.0 || !choices.eq(there) {
            return Err(unusable());
        }
        let summary = ActionSet::default();
        let node = Node::new(state, by, record.choices, None, summary);
        let node = Arc::new(node);
        if !visited.begin(node.state.key(), &node) {
            return Err(unusable());
        }
        restored.push(node);
        progress.push(record.progress);
    }
    let step = |step: StepRecord| Step {
        from: Arc::clone(&restored[step.from]),
        action: step.action,
        turn: step.turn,
    };
    for (node, progress) in restored.iter().zip(progress) {
        node.go_on_from(progress, step);
    }
    let mut first = Vec::new();
    for task in tasks {
        first.push(match task {
            TaskRecord::Begin(place) => Task::Begin(place.follow(engine)?),
            TaskRecord::GoOn(number) => Task::GoOn(Arc::clone(&restored[number])),
        });
    }
    check_resumed(engine)?;
    Ok(Common::new(visited, Numbering::of(actions), workers, first))
}

/// Gets to the state of a node that was reached `by`. `nodes` are those before it.
fn reach(
    engine: &mut Engine<'_>,
    nodes: &[Arc<Node>],
    by: ReachedRecord,
) -> Result<(Reached, State), Cut> {
    match by {
        ReachedRecord::Beginning(place) => {
            let root = place.follow(engine)?;
            Ok((
                Reached::Beginning(root.path.clone()),
                State::clone(root.state()),
            ))
        }
        ReachedRecord::By(StepRecord { from, action, turn }) => {
            let from = Arc::clone(&nodes[from]);
            engine.system.load(&from.state);
            let state = make_again(engine, &from.state, &turn)?;
            Ok((Reached::By(Step { from, action, turn }), state))
        }
    }
}
