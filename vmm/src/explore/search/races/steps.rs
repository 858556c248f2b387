//! The steps on the way to the present state, and which of them come before which in every order
//! that is the same.

use super::actions::Actions;

/// By CPU: the place of the last of its steps that comes before something in every order that is
/// the same; 0 for none. What comes before a step is also before all later ones of its CPU, so the
/// last says all.
type Clock = Vec<usize>;

/// A step.
#[derive(Debug)]
struct Step {
    action: usize,
    cpu: usize,
    /// What comes before it, and itself.
    clock: Clock,
    /// The places of the last steps of its action and of its CPU that were made before.
    earlier: (usize, usize),
}

/// The steps on the way, each with its place, from 1.
#[derive(Debug)]
pub struct Steps {
    all: Vec<Step>,
    /// By action: the place of the last step that was one; 0 for none.
    last_of_action: Vec<usize>,
    /// The same by CPU.
    last_of_cpu: Vec<usize>,
}

impl Steps {
    /// None yet of so many CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            all: Vec::new(),
            last_of_action: Vec::new(),
            last_of_cpu: vec![0; cpus],
        }
    }

    /// Adds a step.
    pub fn push(&mut self, actions: &Actions, action: usize) {
        let cpu = actions.cpu(action);
        let place = self.all.len() + 1;
        let mut clock = self.before(actions, action);
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

    /// Takes the last one away.
    pub fn pop(&mut self) {
        if let Some(step) = self.all.pop() {
            (self.last_of_action[step.action], self.last_of_cpu[step.cpu]) = step.earlier;
        }
    }

    /// The place of the last step of `cpu`; 0 for none.
    pub fn last_of_cpu(&self, cpu: usize) -> usize {
        self.last_of_cpu[cpu]
    }

    /// What comes before `action`, if it comes next.
    pub fn before(&self, actions: &Actions, action: usize) -> Clock {
        let mut clock = vec![0; self.last_of_cpu.len()];
        let rivals = actions.rivals(action).iter();
        let rivals = rivals.map(|rival| self.last_of_action(*rival));
        for place in rivals.chain([self.last_of_cpu(actions.cpu(action))]) {
            for (mine, its) in clock.iter_mut().zip(self.clock(place)) {
                *mine = (*mine).max(*its);
            }
        }
        clock
    }

    /// The steps that race with `action`, which comes next or later: their order can matter, and
    /// nothing on the way orders them already. Of equal steps only the last. Their places and their
    /// CPUs.
    pub fn raced(&self, actions: &Actions, action: usize) -> impl Iterator<Item = (usize, usize)> {
        let ordered = self.clock(self.last_of_cpu(actions.cpu(action)));
        let rivals = actions.rivals(action).iter();
        rivals
            .map(|rival| (self.last_of_action(*rival), actions.cpu(*rival)))
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
    use super::super::actions::tests::access;
    use super::*;
    use crate::explore::sharing::Way;

    #[test]
    fn a_step_comes_behind_those_of_its_cpu_and_what_it_touches() {
        let mut actions = Actions::default();
        let mut number = |cpu, word, way| actions.number(access(cpu, word, way));
        let (write, other) = (number(0, 8, Way::Writes), number(0, 16, Way::Writes));
        let (read, apart) = (number(1, 8, Way::Reads), number(2, 24, Way::Writes));
        let overwrite = number(2, 16, Way::Writes);
        let mut steps = Steps::new(3);
        for action in [write, other, apart, read] {
            steps.push(&actions, action);
        }
        // The read comes behind the write alone.
        assert_eq!(steps.clock(4), [1, 4, 0]);
        assert_eq!(steps.before(&actions, overwrite), [2, 0, 3]);
        // Nothing orders the two writes of one word yet.
        assert_eq!(steps.raced(&actions, overwrite).max(), Some((2, 0)));
        assert_eq!(steps.raced(&actions, apart).max(), None);
        steps.push(&actions, overwrite);
        // Whatever CPU 2 goes on to comes behind its own.
        assert_eq!(steps.raced(&actions, overwrite).max(), None);
        assert_eq!(steps.last_of_cpu(2), 5);
        steps.pop();
        assert_eq!(steps.last_of_cpu(2), 3);
        assert_eq!(steps.raced(&actions, overwrite).max(), Some((2, 0)));
    }

    #[test]
    fn of_several_steps_that_race_it_is_the_last() {
        let mut actions = Actions::default();
        let one = actions.number(access(0, 8, Way::Writes));
        let other = actions.number(access(1, 8, Way::Reads));
        let third = actions.number(access(2, 8, Way::Writes));
        let mut steps = Steps::new(3);
        for action in [one, other, one] {
            steps.push(&actions, action);
        }
        assert_eq!(steps.raced(&actions, third).max(), Some((3, 0)));
        steps.pop();
        assert_eq!(steps.raced(&actions, third).max(), Some((2, 1)));
        steps.pop();
        assert_eq!(steps.raced(&actions, third).max(), Some((1, 0)));
        steps.pop();
        assert_eq!(steps.raced(&actions, third).max(), None);
    }
}
