//! What an operator can do with IPIs on the wire: hold, delay, release, deliver out of order, lose.
//! Each verb is about one pair of CPUs, or all, and about those IPIs of it that a [`Selection`]
//! names.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::ports::{Delivery, Dispatch};

use super::wire::WireIpi;
use super::{InFlight, Operator, OperatorError, Selection, Wait};

/// A hint for who waits for an IPI while the guest sends none by the wire.
const UNUSED: &str =
    " (none has come this way so far: ask the guest, with --append, to send that way)";

/// A hint for who waits for the IPI of a call.
const NOT_EVERY_CALL: &str =
    " (not every call has an IPI: one that is on its way can tell of several)";

impl Operator {
    /// The IPIs that are called `name`: those with a vector that the guest's manifest names so, or
    /// with that number (`0xf3`), INIT (`init`), or start-up IPIs (`sipi`).
    ///
    /// # Errors
    /// [`OperatorError::Vector`] lists the names there are.
    pub fn ipis_named(&self, name: &str) -> Result<Selection, OperatorError> {
        Ok(Selection::named(name, self.manifest())?)
    }

    /// Holds what of the selection one CPU sends another from now on.
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn wire_hold(&self, from: u32, to: u32, selection: Selection) -> Result<(), OperatorError> {
        let doing = self
            .recorder
            .begin(|| format!("holds {selection} from CPU {from} to CPU {to}"));
        doing.attempt(|| {
            self.check_pair(from, to)?;
            Ok(self.wire.hold(from, to, selection)?)
        })
    }

    /// Holds everything of the selection that is sent from now on.
    ///
    /// # Errors
    /// [`OperatorError::Rules`].
    pub fn wire_hold_all(&self, selection: Selection) -> Result<(), OperatorError> {
        let doing = self.recorder.begin(|| format!("holds all {selection}"));
        doing.attempt(|| Ok(self.wire.hold_all(selection)?))
    }

    /// Delays what of the selection one CPU sends another from now on. What is held of it is
    /// delivered after `delay`.
    ///
    /// # Errors
    /// No such CPU.
    pub fn wire_delay(
        &self,
        from: u32,
        to: u32,
        selection: Selection,
        delay: Duration,
    ) -> Result<(), OperatorError> {
        let text = || format!("delays {selection} from CPU {from} to CPU {to} by {delay:?}");
        let doing = self.recorder.begin(text);
        doing.attempt(|| {
            self.check_pair(from, to)?;
            self.wire.delay(from, to, selection, delay)?;
            self.set_alarm();
            Ok(())
        })
    }

    /// Delivers what of the selection is held from one CPU to another, in order, and holds and
    /// delays it no longer. Without a selection it is everything.
    ///
    /// # Errors
    /// If KVM does not deliver one. All are tried.
    pub fn wire_release(
        &self,
        from: u32,
        to: u32,
        selection: Option<Selection>,
    ) -> Result<(), OperatorError> {
        let of = selection.unwrap_or_default();
        let doing = self
            .recorder
            .begin(|| format!("releases {of} from CPU {from} to CPU {to}"));
        doing.attempt(|| {
            self.check_pair(from, to)?;
            self.carry_all(|carry| Ok(self.wire.release(from, to, selection, carry)?))
        })
    }

    /// Delivers everything of the selection that is held, and holds and delays it no longer.
    /// Without a selection it is everything.
    ///
    /// # Errors
    /// If KVM does not deliver one. All are tried.
    pub fn wire_release_all(&self, selection: Option<Selection>) -> Result<(), OperatorError> {
        let of = selection.unwrap_or_default();
        let doing = self.recorder.begin(|| format!("releases all {of}"));
        doing.attempt(|| self.carry_all(|carry| Ok(self.wire.release_all(selection, carry)?)))
    }

    fn carry_all(
        &self,
        release: impl FnOnce(&mut dyn FnMut(Dispatch)) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let mut all = Ok(());
        release(&mut |dispatch| {
            let carried = self.carry(dispatch);
            if all.is_ok() {
                all = carried;
            }
        })?;
        all
    }

    /// Delivers the `nth` of the held IPIs of the selection, from 0, ahead of the others. Without a
    /// selection it is the `nth` of all.
    ///
    /// # Errors
    /// If it is not there.
    pub fn wire_deliver(
        &self,
        from: u32,
        to: u32,
        selection: Option<Selection>,
        nth: usize,
    ) -> Result<(), OperatorError> {
        self.take_off("delivers", (from, to), selection, nth, |it| self.carry(it))
    }

    /// Loses the `nth` of the held IPIs of the selection, from 0. Without a selection it is the
    /// `nth` of all.
    ///
    /// # Errors
    /// If it is not there.
    pub fn wire_lose(
        &self,
        from: u32,
        to: u32,
        selection: Option<Selection>,
        nth: usize,
    ) -> Result<(), OperatorError> {
        self.take_off("loses", (from, to), selection, nth, |lost| {
            match lost.delivery {
                Delivery::Fixed => &self.lost,
                Delivery::Init | Delivery::StartUp => &self.starts_lost,
            }
            .fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }

    /// Takes the `nth` of the held IPIs of the selection off the wire. `does` says what becomes of
    /// it, and `with` does so.
    fn take_off(
        &self,
        does: &str,
        (from, to): (u32, u32),
        selection: Option<Selection>,
        nth: usize,
        with: impl FnOnce(Dispatch) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let of = selection.unwrap_or_default();
        let text = || format!("{does} number {nth} of the {of} from CPU {from} to CPU {to}");
        let doing = self.recorder.begin(text);
        doing.attempt(|| {
            self.check_pair(from, to)?;
            with(self.wire.take(from, to, selection, nth)?)
        })
    }

    /// All IPIs in flight.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let shown = |(from, ipi): (u32, WireIpi)| InFlight {
            from,
            dispatch: ipi.dispatch,
            name: self.vector_name(ipi.dispatch.vector),
            call: ipi.call,
        };
        self.wire.in_flight().into_iter().map(shown).collect()
    }

    fn vector_name(&self, vector: u8) -> Option<String> {
        let mut vectors = self.manifest().vectors.iter();
        let known = vectors.find(|it| it.number == vector);
        known.map(|it| it.name.clone())
    }

    /// Waits until `count` IPIs of the selection from one CPU to another are held. Without a
    /// selection, all count.
    ///
    /// # Errors
    /// [`OperatorError::TimedOut`].
    pub fn wait_in_flight(
        &self,
        from: u32,
        to: u32,
        selection: Option<Selection>,
        count: usize,
        wait: Wait<'_>,
    ) -> Result<(), OperatorError> {
        let of = selection.unwrap_or_default();
        let pair = || format!("from CPU {from} to CPU {to}");
        let text = || format!("waits for {count} {of} {} on the wire", pair());
        let doing = self.recorder.begin(text);
        let hint = || match (self.wire.is_used(), selection) {
            (false, _) => UNUSED,
            (true, Some(Selection::Call(_))) => NOT_EVERY_CALL,
            _ => "",
        };
        let what = || format!("{count} {of} {} on the wire{}", pair(), hint());
        doing.attempt(|| {
            self.check_pair(from, to)?;
            let enough = || self.wire.in_flight_between(from, to, selection) >= count;
            self.wait(wait, what, || enough().then_some(()))
        })
    }

    fn check_pair(&self, from: u32, to: u32) -> Result<(), OperatorError> {
        self.check_is_cpu(from)?;
        self.check_is_cpu(to)
    }
}
