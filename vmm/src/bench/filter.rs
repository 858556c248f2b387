//! Which lines the table has: each transport to each kind of target in each state, and each sound
//! queue design, as far as the guest has them and the user wants them. Measures nothing.

use std::collections::BTreeSet;

use shared::lab::Transport;

use super::cell::{AUTO, Cell};
use super::words::BenchWords;
use crate::closest::did_you_mean;

/// Which cells are wanted. An empty list wants all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
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

impl Filter {
    fn wants(&self, cell: &Cell) -> bool {
        let among = |wanted: &[String], value: &str| {
            wanted.is_empty() || wanted.iter().any(|it| it == value)
        };
        let queue = cell.queue.as_deref().unwrap_or_default();
        among(&self.by, &cell.by)
            && among(&self.to, &cell.to)
            && among(&self.receiver, &cell.receiver)
            && among(&self.transport, &cell.transport)
            && among(&self.queue, queue)
    }
}

/// A value of a filter that fits no cell at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no line of the table has the {what} \"{value}\"; there are {known}{guess}")]
pub struct NoSuchValue {
    what: &'static str,
    value: String,
    known: String,
    guess: String,
}

/// Checks that each transport and each queue of `filter` is measured at all on a guest with these
/// words. The other values do not depend on the guest.
///
/// # Errors
/// [`NoSuchValue`] for the first that is not.
pub fn check(filter: &Filter, words: &BenchWords) -> Result<(), NoSuchValue> {
    let all = cells(&Filter::default(), words);
    let transports: BTreeSet<_> = all.iter().map(|cell| &*cell.transport).collect();
    let queues: BTreeSet<_> = all
        .iter()
        .filter_map(|cell| cell.queue.as_deref())
        .collect();
    for (what, wanted, known) in [
        ("transport", &filter.transport, transports),
        ("design", &filter.queue, queues),
    ] {
        if let Some(value) = wanted.iter().find(|it| !known.contains(it.as_str())) {
            return Err(NoSuchValue {
                what,
                value: value.clone(),
                guess: did_you_mean(value, known.iter().copied()),
                known: known.into_iter().collect::<Vec<_>>().join(", "),
            });
        }
    }
    Ok(())
}

/// Every cell that `filter` wants and that a guest with these words has. Only sound queue designs
/// are measured: what a broken one costs says nothing.
pub fn cells(filter: &Filter, words: &BenchWords) -> Vec<Cell> {
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
    cells.retain(|cell| filter.wants(cell) && words.has(cell));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::words::tests::words;

    #[test]
    fn no_cell_is_measured_twice() {
        let cells = cells(&Filter::default(), &words());
        for (number, cell) in cells.iter().enumerate() {
            assert!(!cells[..number].contains(cell), "{cell:?}");
        }
    }

    #[test]
    fn a_filter_leaves_what_it_names() {
        let filter = Filter {
            to: vec!["all".to_owned()],
            transport: vec!["shorthand".to_owned()],
            ..Filter::default()
        };
        let left = cells(&filter, &words());
        assert_eq!(left.len(), 4);
        assert!(left.iter().all(|cell| cell.apic.is_some()));
        let filter = Filter {
            queue: vec!["good".to_owned()],
            ..Filter::default()
        };
        assert_eq!(cells(&filter, &words()).len(), 4);
    }

    #[test]
    fn a_value_that_no_cell_has_is_refused_with_a_guess() {
        let check = |filter| check(&filter, &words()).map_err(|error| error.to_string());
        assert_eq!(check(Filter::default()), Ok(()));
        let transport = vec!["x2apic".to_owned(), "x2apc".to_owned()];
        let why = check(Filter {
            transport,
            ..Filter::default()
        });
        let why = why.unwrap_err();
        assert!(why.starts_with("no line of the table has the transport \"x2apc\"; there are "));
        assert!(why.ends_with("; did you mean \"x2apic\"?"), "{why}");
        // A broken queue is not measured.
        let queue = vec!["bad".to_owned()];
        let why = check(Filter {
            queue,
            ..Filter::default()
        });
        assert!(
            why.unwrap_err()
                .contains("the design \"bad\"; there are better, good")
        );
    }

    #[test]
    fn what_the_guest_has_not_is_not_measured() {
        let all = cells(&Filter::default(), &words());
        assert!(all.iter().any(|cell| cell.transport == "xapic"));
        assert!(!all.iter().any(|cell| cell.transport == "pv"));
        assert!(!all.iter().any(|cell| cell.transport == AUTO));
        assert!(!all.iter().any(|cell| cell.queue.as_deref() == Some("bad")));
    }
}
