//! What one CPU sends another, and what of it is on its way: an interrupt, which stays pending until
//! it is taken, or an INIT or a start-up IPI, which arrives whatever the CPU does (SDM Vol. 3A,
//! 10.4.4, 11.6.1). Plain data.

use serde::Serialize;
use shared::ports::{Delivery, Dispatch};

use crate::manifest::{Vector, vectors};

/// What an IPI is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// An interrupt with this vector.
    Interrupt(u8),
    /// INIT.
    Init,
    /// A start-up IPI, with the page at which the CPU starts.
    StartUp(u8),
}

impl Signal {
    /// What `dispatch` hands over.
    pub fn of(dispatch: Dispatch) -> Self {
        match dispatch.delivery {
            Delivery::Fixed => Self::Interrupt(dispatch.vector),
            Delivery::Init => Self::Init,
            Delivery::StartUp => Self::StartUp(dispatch.vector),
        }
    }

    /// Its name, for a guest with these vectors.
    pub fn name(self, known: &[Vector]) -> String {
        match self {
            Self::Interrupt(vector) => vectors::name(known, vector),
            Self::Init => "INIT".to_owned(),
            Self::StartUp(_) => "start-up IPI".to_owned(),
        }
    }

    /// Whether it is an INIT or a start-up IPI.
    pub fn starts(self) -> bool {
        !matches!(self, Self::Interrupt(_))
    }
}

/// The INITs and start-up IPIs on their way to one CPU, in the order in which they were sent, which
/// is that in which they arrive. Those that will have no effect are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Arriving(Vec<Signal>);

impl Arriving {
    /// Whether none is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What arrives next.
    pub(super) fn first(&self) -> Option<Signal> {
        self.0.first().copied()
    }

    /// `signal` is sent to the CPU, which waits for a start-up IPI if `is_waiting`.
    pub(super) fn push(&mut self, signal: Signal, is_waiting: bool) {
        // Two of the same in a row are one: the second has no effect once the first has arrived.
        if self.0.last() != Some(&signal) {
            self.0.push(signal);
        }
        self.leave_out_void(is_waiting);
    }

    /// Takes out what arrives next. After an INIT the CPU waits for a start-up IPI, and after a
    /// start-up IPI it does not.
    pub(super) fn take(&mut self) -> Option<Signal> {
        let first = self.first()?;
        self.0.remove(0);
        self.leave_out_void(first == Signal::Init);
        Some(first)
    }

    /// Leaves out, at the front, what has no effect on a CPU that waits for a start-up IPI, or does
    /// not. Nothing that is behind it can change that before it arrives.
    fn leave_out_void(&mut self, is_waiting: bool) {
        let has_effect = |signal: &Signal| (*signal == Signal::Init) != is_waiting;
        let void = self.0.iter().take_while(|it| !has_effect(it)).count();
        self.0.drain(..void);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Signal = Signal::StartUp(8);

    /// What arrives at a CPU that `is_waiting`, if these are sent to it.
    fn arrivals(is_waiting: bool, sent: &[Signal]) -> Vec<Signal> {
        let mut arriving = Arriving::default();
        sent.iter().for_each(|it| arriving.push(*it, is_waiting));
        std::iter::from_fn(|| arriving.take()).collect()
    }

    #[test]
    fn only_what_has_an_effect_arrives_and_in_the_order_in_which_it_was_sent() {
        use Signal::Init;
        assert_eq!(arrivals(false, &[Init, START, START]), [Init, START]);
        assert_eq!(arrivals(false, &[START, Init, START]), [Init, START]);
        assert_eq!(arrivals(true, &[Init, Init, START]), [START]);
        assert_eq!(arrivals(true, &[START, Init, START]), [START, Init, START]);
        assert_eq!(arrivals(false, &[Init, Init]), [Init]);
        assert_eq!(arrivals(false, &[START]), []);
        assert_eq!(arrivals(true, &[Init]), []);
    }
}
