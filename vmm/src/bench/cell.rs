//! What is measured: each transport towards each kind of destination in each state, and each design
//! of a queue, as far as the guest has them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::lab::Transport;

use super::words::{AUTO, Words};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cell {
    /// `ipi`, or `call`.
    pub by: String,
    /// To whom: `self`, `one`, `some` or `all`.
    pub to: String,
    /// What the other CPUs do: `halted`, `running` or `stalled`.
    pub receiver: String,
    /// The transport.
    pub transport: String,
    /// The mode of the APICs, if it is not the transport's own.
    pub apic: Option<String>,
    /// The design of the queue; it matters to calls to several.
    pub queue: Option<String>,
}

/// Which cells are wanted. An empty list wants all.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// By `by`.
    pub by: Vec<String>,
    /// By `to`.
    pub to: Vec<String>,
    /// By `receiver`.
    pub receiver: Vec<String>,
    /// By `transport`.
    pub transport: Vec<String>,
    /// By `queue`.
    pub queue: Vec<String>,
}

impl Cell {
    /// To how many of `vcpus` CPUs a round goes.
    pub fn targets(&self, vcpus: u32) -> u32 {
        match self.to.as_str() {
            "nobody" => 0,
            "some" => (vcpus - 1).div_ceil(3),
            "all" => vcpus - 1,
            _ => 1,
        }
    }

    /// Whether its APICs are reached as pages of memory.
    pub(super) fn is_xapic(&self) -> bool {
        self.apic.as_deref().unwrap_or(&self.transport) == Transport::Xapic.name()
    }

    fn ipi(to: &str, receiver: &str, transport: &str, apic: Option<&str>) -> Self {
        Self {
            by: "ipi".to_owned(),
            to: to.to_owned(),
            receiver: receiver.to_owned(),
            transport: transport.to_owned(),
            apic: apic.map(str::to_owned),
            queue: None,
        }
    }

    fn call(to: &str, receiver: &str, queue: Option<&str>) -> Self {
        Self {
            by: "call".to_owned(),
            queue: queue.map(str::to_owned),
            ..Self::ipi(to, receiver, Transport::X2apic.name(), None)
        }
    }

    fn is_wanted(&self, choice: &Choice) -> bool {
        let among = |wanted: &[String], value: &str| {
            wanted.is_empty() || wanted.iter().any(|it| it == value)
        };
        let queue = self.queue.as_deref().unwrap_or_default();
        among(&choice.by, &self.by)
            && among(&choice.to, &self.to)
            && among(&choice.receiver, &self.receiver)
            && among(&choice.transport, &self.transport)
            && among(&choice.queue, queue)
    }
}

/// Every cell that `choice` wants, and that a guest with these words has. Of designs the sound ones
/// are measured: the others are kept for what is wrong with them, and what that costs is not of
/// interest.
pub fn cells(choice: &Choice, words: &Words) -> Vec<Cell> {
    let mut cells = Vec::new();
    let (xapic, x2apic) = (Transport::Xapic.name(), Transport::X2apic.name());
    for transport in [xapic, x2apic] {
        cells.push(Cell::ipi("self", "halted", transport, None));
    }
    let several = [
        Transport::Xapic,
        Transport::X2apic,
        Transport::X2apicCluster,
        Transport::Pv,
    ]
    .map(Transport::name);
    for receiver in ["halted", "running", "stalled"] {
        for transport in several {
            cells.push(Cell::ipi("one", receiver, transport, None));
        }
    }
    for receiver in ["halted", "running"] {
        for transport in several.into_iter().chain([AUTO]) {
            cells.push(Cell::ipi("some", receiver, transport, None));
        }
        for transport in several {
            cells.push(Cell::ipi("all", receiver, transport, None));
        }
        let shorthand = Transport::Shorthand.name();
        for apic in [xapic, x2apic] {
            cells.push(Cell::ipi("all", receiver, shorthand, Some(apic)));
        }
    }
    cells.push(Cell::call("self", "halted", None));
    for receiver in ["halted", "running"] {
        cells.push(Cell::call("one", receiver, None));
        for queue in words.designs() {
            for to in ["some", "all"] {
                cells.push(Cell::call(to, receiver, Some(queue)));
            }
        }
    }
    cells.retain(|cell| cell.is_wanted(choice) && words.has(cell));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::words::tests::words;

    #[test]
    fn no_cell_is_measured_twice() {
        let cells = cells(&Choice::default(), &words());
        for (number, cell) in cells.iter().enumerate() {
            assert!(!cells[..number].contains(cell), "{cell:?}");
        }
    }

    #[test]
    fn a_choice_leaves_what_it_names() {
        let choice = Choice {
            to: vec!["all".to_owned()],
            transport: vec!["shorthand".to_owned()],
            ..Choice::default()
        };
        let left = cells(&choice, &words());
        assert_eq!(left.len(), 4);
        assert!(left.iter().all(|cell| cell.apic.is_some()));
        let choice = Choice {
            queue: vec!["good".to_owned()],
            ..Choice::default()
        };
        assert_eq!(cells(&choice, &words()).len(), 4);
    }

    #[test]
    fn what_the_guest_has_not_is_not_measured() {
        let all = cells(&Choice::default(), &words());
        assert!(all.iter().any(|cell| cell.transport == "xapic"));
        assert!(!all.iter().any(|cell| cell.transport == "pv"));
        assert!(!all.iter().any(|cell| cell.transport == AUTO));
        assert!(!all.iter().any(|cell| cell.queue.as_deref() == Some("bad")));
    }

    #[test]
    fn targets_are_counted_as_the_guest_does() {
        let targets = |to: &str| Cell::ipi(to, "halted", "x2apic", None).targets(8);
        assert_eq!(
            ["nobody", "self", "one", "some", "all"].map(targets),
            [0, 1, 1, 3, 7]
        );
    }
}
