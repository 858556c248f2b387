//! What was done to a machine from outside, and who did it: a script, a client of the control
//! socket, the program that runs the machine, or a stall that was planned. As a part of a trace.
//! Knows what was done as a sentence, and otherwise only which stalls it ordered.

use std::fmt;

use crate::machine::lifecycle::Stall;

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// A script, in this line of its file.
    Script(usize),
    /// A client of the control socket, by the order in which they came, from 1.
    Client(u64),
    /// The program that runs the machine.
    Program,
    /// A stall that was planned before the run (`--stall`).
    Planned,
    /// The guest's kernel, which says something of itself.
    Kernel,
    /// A debugger that is attached (`--gdb`).
    Debugger,
    /// The plan by which vCPUs are stolen from (`--steal`).
    Steal,
}

impl Actor {
    /// The name of the lane in which what it does is shown. What is stolen has none: it would fill
    /// any.
    pub fn lane(self) -> Option<String> {
        match self {
            Self::Script(_) => Some("script".to_owned()),
            Self::Client(number) => Some(format!("client {number}")),
            Self::Program => Some("program".to_owned()),
            Self::Planned => Some("--stall".to_owned()),
            Self::Kernel => Some("kernel".to_owned()),
            Self::Debugger => Some("gdb".to_owned()),
            Self::Steal => None,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Script(line) => write!(f, "script, line {line}"),
            Self::Client(number) => write!(f, "client {number}"),
            Self::Program => f.write_str("the program"),
            Self::Planned => f.write_str("--stall"),
            Self::Kernel => f.write_str("the guest's kernel"),
            Self::Debugger => f.write_str("gdb"),
            Self::Steal => f.write_str("--steal"),
        }
    }
}

/// The stall that something ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ordered {
    /// The vCPU; `None` means all.
    pub cpu: Option<u32>,
    /// How it is stalled.
    pub stall: Stall,
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// When it began, in cycles of a TSC: of the host's where it is recorded, of the guest's in a
    /// trace.
    pub from: u64,
    /// When it was done. Of a wait, when what was waited for had happened.
    pub to: u64,
    /// Who did it.
    pub by: Actor,
    /// What it was.
    pub text: String,
    /// The stall that it ordered, if it did.
    pub ordered: Option<Ordered>,
}

impl Mark {
    /// Whether it orders this stall of this vCPU.
    fn orders(&self, cpu: usize, stall: Stall) -> bool {
        self.ordered.is_some_and(|ordered| {
            ordered.stall == stall && ordered.cpu.is_none_or(|it| it as usize == cpu)
        })
    }
}

/// Everything that was done to a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// By when it began.
    pub list: Vec<Mark>,
    /// How much more was done for which there was no room.
    pub dropped: u64,
}

impl Marks {
    /// Who ordered a stall of a vCPU that began at `at`: whoever gave the last order before.
    pub fn who_stalled(&self, cpu: usize, stall: Stall, at: u64) -> Option<Actor> {
        let before = self.list.partition_point(|mark| mark.from <= at);
        let mut newest_first = self.list[..before].iter().rev();
        newest_first
            .find(|mark| mark.orders(cpu, stall))
            .map(|mark| mark.by)
    }

    /// The lanes in which something is shown, each with its marks.
    pub fn lanes(&self) -> Vec<(String, Vec<&Mark>)> {
        let mut lanes: Vec<(Actor, String, Vec<&Mark>)> = Vec::new();
        for mark in &self.list {
            let Some(name) = mark.by.lane() else { continue };
            match lanes.iter_mut().find(|(_, known, _)| *known == name) {
                Some((.., marks)) => marks.push(mark),
                None => lanes.push((mark.by, name, vec![mark])),
            }
        }
        lanes.sort_by_key(|(by, ..)| match by {
            Actor::Script(_) => Actor::Script(0),
            by => *by,
        });
        lanes.into_iter().map(|(_, name, it)| (name, it)).collect()
    }

    /// The first and the last time.
    pub fn span(&self) -> Option<(u64, u64)> {
        let last = self.list.iter().map(|mark| mark.to).max()?;
        Some((self.list.first()?.from, last))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn mark(from: u64, to: u64, by: Actor, text: &str) -> Mark {
        Mark {
            from,
            to,
            by,
            text: text.to_owned(),
            ordered: None,
        }
    }

    pub(crate) fn order(from: u64, by: Actor, cpu: Option<u32>, stall: Stall) -> Mark {
        Mark {
            ordered: Some(Ordered { cpu, stall }),
            ..mark(from, from, by, "order")
        }
    }

    #[test]
    fn a_stall_is_whose_last_order_it_follows() {
        let marks = Marks {
            list: vec![
                order(10, Actor::Script(3), Some(1), Stall::Paused),
                order(20, Actor::Client(2), None, Stall::Paused),
                order(30, Actor::Planned, Some(2), Stall::Paused),
                order(40, Actor::Script(9), Some(1), Stall::Held),
            ],
            dropped: 0,
        };
        let who = |cpu, stall, at| marks.who_stalled(cpu, stall, at);
        assert_eq!(who(1, Stall::Paused, 9), None);
        assert_eq!(who(1, Stall::Paused, 15), Some(Actor::Script(3)));
        assert_eq!(who(2, Stall::Paused, 15), None);
        assert_eq!(who(1, Stall::Paused, 50), Some(Actor::Client(2)));
        assert_eq!(who(2, Stall::Paused, 50), Some(Actor::Planned));
        assert_eq!(who(1, Stall::Held, 50), Some(Actor::Script(9)));
        assert_eq!(who(2, Stall::Held, 50), None);
    }

    #[test]
    fn each_has_a_lane_and_a_script_has_one_for_all_its_lines() {
        let marks = Marks {
            list: vec![
                mark(1, 1, Actor::Client(2), "a"),
                mark(2, 9, Actor::Script(7), "b"),
                mark(3, 3, Actor::Steal, "c"),
                mark(4, 4, Actor::Script(2), "d"),
                mark(5, 5, Actor::Client(1), "e"),
            ],
            dropped: 0,
        };
        let lanes = marks.lanes().into_iter().map(|(name, marks)| {
            let texts: String = marks.iter().map(|mark| mark.text.as_str()).collect();
            (name, texts)
        });
        let lanes: Vec<_> = lanes.collect();
        let expected = [("script", "bd"), ("client 1", "e"), ("client 2", "a")];
        assert_eq!(lanes, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(marks.span(), Some((1, 9)));
        assert_eq!(Marks::default().span(), None);
    }
}
