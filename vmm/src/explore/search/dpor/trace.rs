//! The trace: the steps on the search stack, with the happens-before relation between them. A step
//! happens before another one if it comes first in every equivalent order.

use super::actions::Actions;

/// A vector clock: for each CPU the place of its last step that happens before something; 0 for
/// none. All earlier steps of that CPU then happen before it as well.
type VectorClock = Vec<usize>;

/// A step.
#[derive(Debug)]
struct Step {
    action: usize,
    cpu: usize,
    /// What happens before it, including itself.
    clock: VectorClock,
    /// The places of the previous step of its action, and of the previous step of its CPU.
    earlier: (usize, usize),
}

/// The steps on the search stack. Their places count from 1.
#[derive(Debug)]
pub struct Trace {
    all: Vec<Step>,
    /// By action: the place of its last step; 0 for none.
    last_of_action: Vec<usize>,
    /// By CPU: the place of its last step; 0 for none.
    last_of_cpu: Vec<usize>,
}

impl Trace {
    /// An empty trace of this number of CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            all: Vec::new(),
            last_of_action: Vec::new(),
            last_of_cpu: vec![0; cpus],
        }
    }

    /// Adds a step of `action`.
    pub fn push(&mut self, actions: &Actions<'_>, action: usize) {
        let cpu = actions.cpu(action);
        let place = self.all.len() + 1;
        let mut clock = self.happens_before(actions, action);
        clock[cpu] = place;
        if self.last_of_action.len() <= action {
            self.last_of_action.resize(action + 1, 0);
        }
        let of_action = std::mem::replace(&mut self.last_of_action[action], place);
        let of_cpu = std::mem::replace(&mut self.last_of_cpu[cpu], place);
        self.all.push(Step {
            action,
            cpu,
            clock,
            earlier: (of_action, of_cpu),
        });
    }

    /// Removes the last step.
    pub fn pop(&mut self) {
        if let Some(step) = self.all.pop() {
            (self.last_of_action[step.action], self.last_of_cpu[step.cpu]) = step.earlier;
        }
    }

    /// The place of the last step of `cpu`; 0 for none.
    pub fn last_of_cpu(&self, cpu: usize) -> usize {
        self.last_of_cpu[cpu]
    }

    /// What happens before `action`, if that comes next.
    pub fn happens_before(&self, actions: &Actions<'_>, action: usize) -> VectorClock {
        let mut clock = vec![0; self.last_of_cpu.len()];
        let dependent = actions.dependent(action).iter();
        let dependent = dependent.map(|other| self.last_of_action(*other));
        for place in dependent.chain([self.last_of_cpu(actions.cpu(action))]) {
            for (mine, its) in clock.iter_mut().zip(self.clock(place)) {
                *mine = (*mine).max(*its);
            }
        }
        clock
    }

    /// The places and CPUs of the steps that race with `action`, which comes next or later: their
    /// order can matter, and no step in between orders them already. Of several steps of the same
    /// action only the last is given.
    pub fn races_with(
        &self,
        actions: &Actions<'_>,
        action: usize,
    ) -> impl Iterator<Item = (usize, usize)> {
        let ordered = self.clock(self.last_of_cpu(actions.cpu(action)));
        let dependent = actions.dependent(action).iter();
        dependent
            .map(|other| (self.last_of_action(*other), actions.cpu(*other)))
            .filter(|(place, cpu)| *place > ordered.get(*cpu).copied().unwrap_or(0))
    }

    fn last_of_action(&self, action: usize) -> usize {
        self.last_of_action.get(action).copied().unwrap_or(0)
    }

    /// The clock of the step at `place`; empty at 0.
    fn clock(&self, place: usize) -> &[usize] {
        match place {
            0 => &[],
            _ => &self.all[place - 1].clock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::actions::Numbering;
    use super::super::actions::tests::access;
    use super::*;
    use crate::explore::sharing::AccessKind;

    #[test]
    fn steps_of_its_cpu_and_dependent_steps_happen_before_a_step() {
        let numbering = Numbering::default();
        let mut actions = Actions::new(&numbering);
        let mut number = |cpu, word, kind| actions.number(access(cpu, word, kind));
        let (write, other) = (
            number(0, 8, AccessKind::Writes),
            number(0, 16, AccessKind::Writes),
        );
        let (read, apart) = (
            number(1, 8, AccessKind::Reads),
            number(2, 24, AccessKind::Writes),
        );
        let overwrite = number(2, 16, AccessKind::Writes);
        let mut trace = Trace::new(3);
        for action in [write, other, apart, read] {
            trace.push(&actions, action);
        }
        // Only the write happens before the read.
        assert_eq!(trace.clock(4), [1, 4, 0]);
        assert_eq!(trace.happens_before(&actions, overwrite), [2, 0, 3]);
        // Nothing orders the two writes of one word yet.
        assert_eq!(trace.races_with(&actions, overwrite).max(), Some((2, 0)));
        assert_eq!(trace.races_with(&actions, apart).max(), None);
        trace.push(&actions, overwrite);
        // Whatever CPU 2 does next, its own steps happen before that.
        assert_eq!(trace.races_with(&actions, overwrite).max(), None);
        assert_eq!(trace.last_of_cpu(2), 5);
        trace.pop();
        assert_eq!(trace.last_of_cpu(2), 3);
        assert_eq!(trace.races_with(&actions, overwrite).max(), Some((2, 0)));
    }

    #[test]
    fn of_several_steps_that_race_it_is_the_last() {
        let numbering = Numbering::default();
        let mut actions = Actions::new(&numbering);
        let one = actions.number(access(0, 8, AccessKind::Writes));
        let other = actions.number(access(1, 8, AccessKind::Reads));
        let third = actions.number(access(2, 8, AccessKind::Writes));
        let mut trace = Trace::new(3);
        for action in [one, other, one] {
            trace.push(&actions, action);
        }
        assert_eq!(trace.races_with(&actions, third).max(), Some((3, 0)));
        trace.pop();
        assert_eq!(trace.races_with(&actions, third).max(), Some((2, 1)));
        trace.pop();
        assert_eq!(trace.races_with(&actions, third).max(), Some((1, 0)));
        trace.pop();
        assert_eq!(trace.races_with(&actions, third).max(), None);
    }
}
