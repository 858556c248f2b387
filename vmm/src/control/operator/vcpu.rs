//! What an operator can ask of one vCPU: to be paused, to be held at a point or an instruction, to
//! take steps, and to be inspected.

use super::stops::Stops;
use super::{Operator, OperatorError, Wait, Watch};
use crate::lab::CpuCounts;
use crate::machine::inspect::VcpuDump;
use crate::machine::lifecycle::{Stall, State};
use crate::machine::message::HeldBy;
use crate::manifest::Manifest;

/// What there is to see of a stalled vCPU.
#[derive(Debug)]
pub struct Inspection {
    /// Registers, pending interrupts and backtrace.
    pub dump: VcpuDump,
    /// The function that it is in, and the offset.
    pub place: String,
    /// What it is held by, if it is held at a point, at an address or after steps.
    pub held_by: Option<HeldBy>,
    /// The name of the point at which it is held, if it is held at one.
    pub probe: Option<String>,
}

impl Operator {
    /// The state that a vCPU has confirmed.
    ///
    /// # Errors
    /// There is no such vCPU.
    pub fn state(&self, cpu: u32) -> Result<State, OperatorError> {
        self.with_threads(|threads| Ok(threads.state(cpu)?.0))
    }

    /// Pauses a vCPU, and waits for the confirmation. Returns its state.
    ///
    /// # Errors
    /// There is no such vCPU, or it has exited.
    pub fn pause(&self, cpu: u32) -> Result<State, OperatorError> {
        let text = || format!("pauses CPU {cpu}");
        let doing = self.recorder.order(cpu, Stall::Paused, text);
        doing.attempt(|| self.with_threads(|threads| Ok(threads.pause(cpu)?)))
    }

    /// Undoes one pause, or the hold at a point. The operator cannot undo a planned stall.
    ///
    /// # Errors
    /// It is neither paused nor held.
    pub fn resume(&self, cpu: u32) -> Result<(), OperatorError> {
        let doing = self.recorder.begin(|| format!("resumes CPU {cpu}"));
        doing.attempt(|| {
            self.disarm_functions(None)?;
            self.goes_on(cpu);
            self.with_threads(|threads| Ok(threads.resume(cpu)?))
        })
    }

    /// Holds a vCPU when it comes to a point.
    ///
    /// # Errors
    /// There is no such point, or no such vCPU.
    pub fn hold_at(&self, cpu: u32, watch: Watch) -> Result<(), OperatorError> {
        let text = || format!("has CPU {cpu} held at {watch}");
        let doing = self.recorder.order(cpu, Stall::Held, text);
        doing.attempt(|| {
            self.will_stop(cpu)?;
            match self.lab.is_told() {
                true => Ok(self.watches.arm(cpu, watch)?),
                false => self.hold_at_function(cpu, watch),
            }
        })
    }

    /// Holds a vCPU when it comes to a function of the guest's kernel.
    fn hold_at_function(&self, cpu: u32, watch: Watch) -> Result<(), OperatorError> {
        if watch.call.is_some() {
            return Err(OperatorError::NoCalls);
        }
        let address = self.symbols.address(&watch.name)?;
        self.with_threads(|threads| {
            let arm = |memory: &_| {
                self.functions
                    .arm(cpu, watch, address, &self.symbols, memory)
            };
            Ok(threads.with_all_out(arm)??)
        })
    }

    /// Has a vCPU held at no function any more, and undoes what is left at functions where nobody is
    /// to be held.
    pub(super) fn disarm_functions(&self, cpu: Option<u32>) -> Result<(), OperatorError> {
        if !self.functions.is_armed(cpu) {
            return Ok(());
        }
        self.with_threads(|threads| {
            Ok(threads.with_all_out(|memory| self.functions.disarm(cpu, memory))?)
        })
    }

    /// Holds a vCPU when it comes to an instruction, given by symbol or by address. Returns the
    /// address.
    ///
    /// # Errors
    /// If breakpoints do not work on this host, or the image has no such symbol.
    pub fn break_at(&self, cpu: u32, place: &str) -> Result<u64, OperatorError> {
        let text = || format!("has CPU {cpu} held at {place}");
        let doing = self.recorder.order(cpu, Stall::Held, text);
        doing.attempt(|| {
            let address = self.symbols.address(place)?;
            let stops = self.will_stop(cpu)?;
            stops.set_breakpoint(address, self.held_by(cpu)?);
            let set = self.with_threads(|threads| Ok(threads.set_breakpoint(cpu, address)?));
            set.inspect_err(|_| stops.clear_breakpoint())?;
            Ok(address)
        })
    }

    /// The points at which a vCPU will be held.
    pub fn armed(&self, cpu: u32) -> Vec<Watch> {
        match self.lab.is_told() {
            true => self.watches.armed(cpu),
            false => self.functions.of(cpu),
        }
    }

    /// The address at which a breakpoint will hold a vCPU.
    ///
    /// # Errors
    /// [`OperatorError::Over`].
    pub fn breakpoint(&self, cpu: u32) -> Result<Option<u64>, OperatorError> {
        let held_by = self.held_by(cpu)?;
        Ok(self
            .stops
            .get(cpu as usize)
            .and_then(|stops| stops.breakpoint(held_by)))
    }

    /// Disarms all points and the breakpoint of a vCPU. If it has reached one of them meanwhile, it
    /// is held when this returns.
    ///
    /// # Errors
    /// There is no such vCPU, or it has exited.
    pub fn disarm(&self, cpu: u32) -> Result<(), OperatorError> {
        let doing = self
            .recorder
            .begin(|| format!("has CPU {cpu} held nowhere any more"));
        doing.attempt(|| {
            self.check_is_cpu(cpu)?;
            self.watches.disarm(cpu);
            self.disarm_functions(Some(cpu))?;
            let stops = &self.stops[cpu as usize];
            if !stops.were_set() {
                // There is nothing to clear, and a kick would count as an exit.
                return Ok(());
            }
            self.with_threads(|threads| Ok(threads.clear_stops(cpu)?))?;
            stops.clear_breakpoint();
            Ok(())
        })
    }

    /// The stops of a vCPU, one of which is about to be set.
    fn will_stop(&self, cpu: u32) -> Result<&Stops, OperatorError> {
        self.check_is_cpu(cpu)?;
        let stops = &self.stops[cpu as usize];
        stops.will_be_set();
        Ok(stops)
    }

    /// Notes that a vCPU that may be held is about to go on.
    pub(super) fn goes_on(&self, cpu: u32) {
        if let (Some(stops), Ok(held_by)) = (self.stops.get(cpu as usize), self.held_by(cpu)) {
            stops.goes_on(held_by);
        }
    }

    /// Waits until a vCPU is held at a point, at an address or after steps.
    ///
    /// # Errors
    /// [`OperatorError::TimedOut`] says in which state it is instead.
    pub fn wait_held(&self, cpu: u32, wait: Wait<'_>) -> Result<(), OperatorError> {
        let doing = self
            .recorder
            .begin(|| format!("waits until CPU {cpu} is held"));
        doing.attempt(|| {
            self.check_is_cpu(cpu)?;
            let what = || match self.state(cpu) {
                Ok(State::Stalled(Stall::Paused)) => {
                    format!("CPU {cpu} being held (it is paused)")
                }
                Ok(State::Exited(why)) => format!("CPU {cpu} being held ({why})"),
                _ => format!("CPU {cpu} being held (it runs)"),
            };
            self.wait(wait, what, || self.is_held(cpu).then_some(()))
        })
    }

    /// Lets a held or paused vCPU execute `count` instructions, and waits until it is held again.
    ///
    /// # Errors
    /// If it is not stalled, or has not come back within the limit.
    pub fn step(&self, cpu: u32, count: u64, wait: Wait<'_>) -> Result<(), OperatorError> {
        let text = || format!("steps CPU {cpu}, {count} times");
        let doing = self.recorder.order(cpu, Stall::Held, text);
        doing.attempt(|| {
            self.will_stop(cpu)?;
            self.goes_on(cpu);
            self.with_threads(|threads| Ok(threads.step(cpu, count)?))?;
            let what = || format!("the end of {count} steps of CPU {cpu}, which may be halted,");
            let stepped = self.wait(wait, what, || self.is_held(cpu).then_some(()));
            if let Err(OperatorError::TimedOut { .. } | OperatorError::GivenUp(_)) = stepped {
                // The steps would have ended with a hold; replace it by a pause, and cancel the steps.
                self.with_threads(|threads| {
                    threads.pause(cpu)?;
                    Ok(threads.step(cpu, 0)?)
                })?;
            }
            stepped
        })
    }

    fn is_held(&self, cpu: u32) -> bool {
        self.state(cpu)
            .is_ok_and(|state| state == State::Stalled(Stall::Held))
    }

    /// Inspects a stalled vCPU.
    ///
    /// # Errors
    /// If it is not stalled.
    pub fn look(&self, cpu: u32) -> Result<Inspection, OperatorError> {
        self.with_threads(|threads| {
            let dump = threads
                .dump(cpu)?
                .map_err(|source| OperatorError::Look(cpu, source))?;
            let held_by = threads.held_by(cpu);
            let probe = match held_by {
                Some(HeldBy::Point { point, .. }) => self.probe_name(point),
                _ => None,
            };
            Ok(Inspection {
                place: self.symbols.place(dump.regs.rip),
                probe: probe.map(str::to_owned),
                held_by,
                dump,
            })
        })
    }

    /// What a vCPU is held by, if it has stopped by itself.
    ///
    /// # Errors
    /// [`OperatorError::Over`].
    pub fn held_by(&self, cpu: u32) -> Result<Option<HeldBy>, OperatorError> {
        self.with_threads(|threads| Ok(threads.held_by(cpu)))
    }

    /// The function that `address` lies in and how far into it, if it lies in one.
    pub fn symbol(&self, address: u64) -> Option<String> {
        self.symbols.name(address)
    }

    /// The address, with its function if that is known.
    pub fn place(&self, address: u64) -> String {
        self.symbols.place(address)
    }

    /// The name of the point at `address`, or, of a guest without a lab, of the function.
    pub fn probe_name(&self, address: u64) -> Option<&str> {
        match self.lab.is_told() {
            true => self.watches.points().at(address).map(|point| &*point.name),
            false => self.symbols.function(address),
        }
    }

    /// The counts of a CPU of the guest.
    pub fn counted(&self, cpu: u32) -> Option<CpuCounts> {
        self.lab.counted().nth(cpu as usize)
    }

    /// The guest's manifest.
    pub fn manifest(&self) -> &Manifest {
        self.lab.manifest()
    }

    /// Checks that there is such a CPU.
    pub(super) fn check_is_cpu(&self, cpu: u32) -> Result<(), OperatorError> {
        self.state(cpu).map(|_| ())
    }
}
