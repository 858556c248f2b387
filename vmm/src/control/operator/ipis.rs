//! What an operator can do with IPIs on the wire: hold, delay, release, deliver out of order, lose.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::ports::Dispatch;

use super::{InFlight, Operator, OperatorError, Wait};

impl Operator {
    /// Holds what one CPU sends another from now on.
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn wire_hold(&self, from: u32, to: u32) -> Result<(), OperatorError> {
        self.check_pair(from, to)?;
        self.wire.hold(from, to);
        Ok(())
    }

    /// Holds everything sent from now on.
    pub fn wire_hold_all(&self) {
        self.wire.hold_all();
    }

    /// Delays what one CPU sends another from now on. What is held is delivered after `delay`.
    ///
    /// # Errors
    /// No such CPU.
    pub fn wire_delay(&self, from: u32, to: u32, delay: Duration) -> Result<(), OperatorError> {
        self.check_pair(from, to)?;
        self.wire.delay(from, to, delay);
        self.set_alarm();
        Ok(())
    }

    /// Delivers what is held from one CPU to another, in order, and holds and delays no longer.
    ///
    /// # Errors
    /// If KVM does not deliver one. All are tried.
    pub fn wire_release(&self, from: u32, to: u32) -> Result<(), OperatorError> {
        self.check_pair(from, to)?;
        self.carry_all(|carry| self.wire.release(from, to, carry))
    }

    /// Delivers everything that is held, and holds and delays no longer.
    ///
    /// # Errors
    /// If KVM does not deliver one. All are tried.
    pub fn wire_release_all(&self) -> Result<(), OperatorError> {
        self.carry_all(|carry| self.wire.release_all(carry))
    }

    fn carry_all(
        &self,
        release: impl FnOnce(&mut dyn FnMut(Dispatch)),
    ) -> Result<(), OperatorError> {
        let mut all = Ok(());
        release(&mut |dispatch| {
            let carried = self.carry(dispatch);
            if all.is_ok() {
                all = carried;
            }
        });
        all
    }

    /// Delivers the `nth` of the held IPIs, from 0, ahead of the others.
    ///
    /// # Errors
    /// If it is not there.
    pub fn wire_deliver(&self, from: u32, to: u32, nth: usize) -> Result<(), OperatorError> {
        self.check_pair(from, to)?;
        let dispatch = self.wire.take(from, to, nth)?;
        self.carry(dispatch)
    }

    /// Loses the `nth` of the held IPIs, from 0.
    ///
    /// # Errors
    /// If it is not there.
    pub fn wire_lose(&self, from: u32, to: u32, nth: usize) -> Result<(), OperatorError> {
        self.check_pair(from, to)?;
        self.wire.take(from, to, nth)?;
        self.lost.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// All IPIs in flight.
    pub fn in_flight(&self) -> Vec<InFlight> {
        self.wire.in_flight()
    }

    /// Waits until `count` IPIs from one CPU to another are held.
    ///
    /// # Errors
    /// [`OperatorError::TimedOut`].
    pub fn wait_in_flight(
        &self,
        from: u32,
        to: u32,
        count: usize,
        wait: Wait<'_>,
    ) -> Result<(), OperatorError> {
        self.check_pair(from, to)?;
        let what = || {
            let hint = match self.wire.is_used() {
                true => "",
                false => {
                    " (none has come this way so far: ask the guest, with --append, to send that \
                     way)"
                }
            };
            format!("{count} IPIs from CPU {from} to CPU {to} on the wire{hint}")
        };
        let enough = || self.wire.in_flight_between(from, to) >= count;
        self.wait(wait, what, || enough().then_some(()))
    }

    fn check_pair(&self, from: u32, to: u32) -> Result<(), OperatorError> {
        self.check_is_cpu(from)?;
        self.check_is_cpu(to)
    }
}
