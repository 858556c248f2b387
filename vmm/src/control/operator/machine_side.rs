//! What the machine's own side needs of its operator. The event loop takes requests to end the
//! machine, and reports what has happened; the vCPU threads ask how to react to a message. Must not
//! be used by scripts or clients.

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::ledger::CallId;
use shared::ports::{Delivery, Dispatch};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::wire::WireIpi;
use super::{Expected, Operator, OperatorError};
use crate::control::ending::Ending;
use crate::control::recorder::Recorder;
use crate::control::tracer::Tracer;
use crate::machine::exit::{DebuggerStop, Stop};
use crate::machine::lifecycle::Holder;
use crate::machine::message::{Message, Reaction};
use crate::machine::threads::VcpuThreads;
use crate::stats::trace::Trace;

/// What the VMM itself has done to the IPIs of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VmmIpiCounts {
    /// Interrupts that it has added, to wake a CPU to which a command was posted.
    pub added: u64,
    /// IPIs that the operator lost on purpose.
    pub lost: u64,
    /// IPIs to a local APIC that did not accept them. That of a CPU that is being started does not:
    /// INIT disables it until the CPU enables it again.
    pub dropped: u64,
    /// IPIs to a CPU that does not exist.
    pub to_nobody: u64,
    /// IPIs that are still on the wire.
    pub in_flight: u64,
    /// INIT and start-up IPIs on the wire, which no other count has.
    pub starts: StartCounts,
}

/// INIT and start-up IPIs that went by the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StartCounts {
    /// Sent by the guest.
    pub sent: u64,
    /// Lost by the operator on purpose.
    pub lost: u64,
    /// Still on the wire.
    pub in_flight: u64,
}

impl Operator {
    /// Gives the operator the vCPUs.
    pub(in crate::control) fn take_over(&self, threads: VcpuThreads) {
        *self.threads.write().unwrap_or_else(PoisonError::into_inner) = Some(threads);
    }

    /// Runs `body` with the vCPU threads, which must have been handed over. Other threads can use
    /// them meanwhile.
    pub(in crate::control) fn with_machine<T>(&self, body: impl FnOnce(&VcpuThreads) -> T) -> T {
        body(self.threads().as_ref().expect("the vCPUs were handed over"))
    }

    /// Takes the vCPU threads back, once nothing else uses them.
    pub(in crate::control) fn hand_back(&self) -> VcpuThreads {
        let mut threads = self.threads.write().unwrap_or_else(PoisonError::into_inner);
        threads.take().expect("the vCPUs were handed over")
    }

    /// Handles a message of a vCPU, on that vCPU's thread.
    pub(in crate::control) fn hear(&self, vcpu: u32, message: Message) -> Reaction {
        let reaction = match message {
            Message::WorkloadStarted => {
                // A trace begins here, if there is one. It is turned on before the start is
                // announced, because a caller that waits for the start may turn it off at once.
                if !self.started.load(Ordering::Relaxed) {
                    let _ = self.turn_trace(true);
                }
                self.started.store(true, Ordering::Release);
                Reaction::GoOn
            }
            Message::Reached { point, call } if self.watches.reached(vcpu, point, call) => {
                Reaction::Hold(Holder::Operator)
            }
            Message::Reached { point, .. } if self.functions.reached(vcpu, point) => {
                Reaction::Hold(Holder::Operator)
            }
            Message::Stopped(Stop::Debugger(stop)) => {
                self.debugging.stopped(vcpu, stop);
                Reaction::Hold(Holder::Debugger)
            }
            Message::Stopped(_) => Reaction::Hold(Holder::Operator),
            Message::AtStopInstruction(address) if self.debugging.is_patched(address) => {
                self.debugging
                    .stopped(vcpu, DebuggerStop::Breakpoint(address));
                Reaction::Hold(Holder::Debugger)
            }
            Message::Done => {
                self.announce_done(vcpu);
                Reaction::GoOn
            }
            Message::Dispatch { dispatch, call } => {
                self.dispatch(vcpu, dispatch, call);
                Reaction::GoOn
            }
            _ => Reaction::GoOn,
        };
        self.notifier.publish();
        reaction
    }

    /// Wakes all that wait, because a vCPU has changed its state.
    pub(in crate::control) fn publish(&self) {
        self.notifier.publish();
    }

    /// Marks the machine as ended, for this reason.
    pub(in crate::control) fn end(&self, why: &dyn fmt::Display, cut_short: bool) {
        self.cut_short.store(cut_short, Ordering::Release);
        self.ended.get_or_init(|| why.to_string());
        self.notifier.publish();
        self.debugging.wake();
    }

    /// Marks the machine as wound up.
    pub(in crate::control) fn mark_wound_up(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Readable when there is a request to end the machine.
    pub(in crate::control) fn ending_requested(&self) -> &EventFd {
        &self.ending_requested
    }

    /// The ending that was requested, if there is one.
    pub(in crate::control) fn requested_ending(&self) -> Option<Ending> {
        let _ = self.ending_requested.read();
        self.requested_ending.get().cloned()
    }

    /// Requests that the machine end now, in this way. Only the first request counts.
    pub(in crate::control) fn end_as(&self, ending: Ending) {
        if self.requested_ending.set(ending).is_ok() {
            // Cannot be full after one write.
            let _ = self.ending_requested.write(1);
        }
    }

    /// Readable when delayed IPIs are due.
    pub(in crate::control) fn alarm_fd(&self) -> RawFd {
        self.alarm().as_raw_fd()
    }

    /// Delivers what is due.
    pub(in crate::control) fn deliver_due(&self) {
        self.wire
            .deliver_due(Instant::now(), |it| _ = self.carry(it));
        self.set_alarm();
    }

    /// Readable when the trace is to be collected.
    pub(in crate::control) fn trace_fd(&self) -> Option<RawFd> {
        self.tracer.as_ref().map(Tracer::as_raw_fd)
    }

    /// Records what is done to the machine.
    pub(in crate::control) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Collects what was traced meanwhile.
    pub(in crate::control) fn collect_trace(&self) {
        if let Some(tracer) = &self.tracer {
            tracer.tick();
        }
    }

    /// The trace, if there is one.
    pub(in crate::control) fn traced(&self) -> Option<Trace> {
        let tracer = self.tracer.as_ref()?;
        let mut trace = tracer.trace();
        // Where the clocks of host and guest do not agree, it is not known when they were made.
        if trace.host_blind.is_none() {
            trace.marks = tracer.place(self.recorder.take());
        }
        Some(trace)
    }

    /// What the VMM itself has done to IPIs so far.
    pub(in crate::control) fn vmm_ipis(&self) -> VmmIpiCounts {
        let in_flight = self.wire.in_flight();
        let starting = |(_, ipi): &&(u32, WireIpi)| ipi.dispatch.delivery != Delivery::Fixed;
        let starts_in_flight = in_flight.iter().filter(starting).count() as u64;
        VmmIpiCounts {
            added: self.added.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            to_nobody: self.to_nobody.load(Ordering::Relaxed),
            in_flight: in_flight.len() as u64 - starts_in_flight,
            starts: StartCounts {
                sent: self.starts.load(Ordering::Relaxed),
                lost: self.starts_lost.load(Ordering::Relaxed),
                in_flight: starts_in_flight,
            },
        }
    }

    /// What the run is expected to break.
    pub(in crate::control) fn expectations(&self) -> Expected {
        self.expected().clone()
    }

    /// Marks the machine as reachable: a client can come at any time and drive it.
    pub(in crate::control) fn make_reachable(&self) {
        self.reachable.store(true, Ordering::Relaxed);
    }

    /// Whether the machine may stand still because an operator drives it, or may come to drive it.
    pub(in crate::control) fn is_attended(&self) -> bool {
        let waits_to_be_told = || self.reachable.load(Ordering::Relaxed) && self.takes_commands();
        self.driven.load(Ordering::Relaxed) || self.debugging.is_attached() || waits_to_be_told()
    }

    /// Puts an IPI that the guest has sent on the wire. `call` is what the guest says that it tells
    /// of; it counts if the ledger has it.
    fn dispatch(&self, from: u32, dispatch: Dispatch, call: u64) {
        if dispatch.delivery != Delivery::Fixed {
            self.starts.fetch_add(1, Ordering::Relaxed);
        }
        let call = Some(CallId::from_raw(call)).filter(|call| {
            let is_sent_by = u32::from(call.source()) == from;
            is_sent_by && self.record(*call).is_some()
        });
        let sent = self.wire.send(from, WireIpi { dispatch, call });
        if let Some(dispatch) = sent.deliver {
            // An IPI that KVM does not deliver is counted.
            let _ = self.carry(dispatch);
        }
        if sent.is_delayed {
            self.set_alarm();
        }
    }

    pub(super) fn set_alarm(&self) {
        let now = Instant::now();
        let alarm = &mut *self.alarm();
        match self.wire.next_due() {
            // Zero would disarm it. Setting an existing timer does not fail.
            Some(due) => {
                let left = due.saturating_duration_since(now);
                let _ = alarm.reset(left.max(Duration::from_nanos(1)), None);
            }
            None => _ = alarm.clear(),
        }
    }

    fn alarm(&self) -> MutexGuard<'_, TimerFd> {
        self.alarm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers an IPI that was on the wire.
    pub(super) fn carry(&self, dispatch: Dispatch) -> Result<(), OperatorError> {
        if dispatch.target >= self.cpus() {
            // It is lost, as on a bus. INIT and start-up IPIs are counted by themselves.
            let is_counted = dispatch.delivery == Delivery::Fixed;
            self.to_nobody
                .fetch_add(is_counted.into(), Ordering::Relaxed);
            return Ok(());
        }
        let arrived = self.deliver(dispatch);
        if !matches!(arrived, Ok(true)) && dispatch.delivery == Delivery::Fixed {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        arrived.map(|_| ())
    }

    /// Sends an interrupt, and returns whether it was accepted.
    pub(super) fn deliver(&self, dispatch: Dispatch) -> Result<bool, OperatorError> {
        self.interrupts
            .send(dispatch)
            .map_err(|source| OperatorError::Interrupt(dispatch.target, source))
    }
}
