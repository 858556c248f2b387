//! Steps: which choices there are, and what a CPU does from one stop to the next. Does not choose
//! which CPU goes next.

use std::convert::Infallible;

use shared::probe::{Arms, HELD};
use shared::stop::{self, Access, Announced, Manner};

use super::breach::Breach;
use super::errors::{SpecimenError, kvm};
use super::machine::Specimen;
use super::signal::Signal;
use super::stop_points::StopPoints;
use super::stopped::{FIRST_VECTOR, INTERRUPT_FLAG, Stop, Stopped, bit, teach};
use super::store_buffer::Entry;
use super::waiting::{Depth, Turns};
use crate::explore::schedule::{Act, Choice, Granularity};
use crate::explore::sharing::Sharing;
use crate::lab::deed_refusal::DeedRefusal;
use crate::machine::serial::{MOST_IDLE_EXITS, Serial, SerialExit};

/// How long a CPU may go on without coming to a stop, in rings of the alarm (five per second) and
/// in exits. A sound guest comes to a stop within microseconds. Wall-clock time is not used: a busy
/// host, or one that has suspended this process, would make a livelock of a step.
#[derive(Debug, Default)]
pub(super) struct Patience {
    rings: u32,
    exits: u32,
}

impl Patience {
    const RINGS: u32 = 50;
    const EXITS: u32 = 2_000_000;

    /// Counts an exit that was no stop. Returns whether the limit is reached.
    pub(super) fn is_over(&mut self, halt: &SerialExit) -> bool {
        self.exits += match halt {
            SerialExit::Busy => MOST_IDLE_EXITS,
            _ => 1,
        };
        self.rings += u32::from(*halt == SerialExit::Interrupted);
        self.rings >= Self::RINGS || self.exits >= Self::EXITS
    }
}

/// Stops of one turn after which a CPU is considered to be in an endless loop.
pub const MOST_STOPS: u32 = 100_000;

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The number of stops that the CPU came to, whether or not it exited there. It is at the last
    /// of them.
    pub stops: u32,
    /// How often a vCPU entered the guest for it.
    pub entries: u64,
    /// What broke during the step.
    pub breach: Option<Breach>,
}

/// How many stops a CPU has passed over in a step, and what broke.
type Stepped = (u32, Option<Breach>);

/// Runs a vCPU until it exits, or pauses on the way.
pub(super) type Go<'a, P> = dyn FnMut(&mut Serial, usize) -> Result<SerialExit, P> + 'a;

/// Runs a vCPU until it exits.
fn run(serial: &mut Serial, cpu: usize) -> Result<SerialExit, Infallible> {
    Ok(serial.run(cpu))
}

impl Specimen {
    /// The choices in the present state. Without any, no CPU can go on.
    pub fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        for (cpu, stopped) in self.cpus.iter().enumerate() {
            if self.can_run(stopped) {
                choices.push(Choice::go_on(cpu));
            }
            if stopped.can_take() {
                // The highest vector first, as the APIC delivers them.
                let mut pending: Vec<_> = stopped.pending().collect();
                pending.reverse();
                let taken = pending.into_iter().map(|vector| Choice::take(cpu, vector));
                choices.extend(taken);
            }
            if !stopped.buffer.is_empty() {
                choices.push(Choice::flush(cpu));
            }
            if stopped.can_be_reached() {
                choices.push(Choice::arrive(cpu));
            }
        }
        choices
    }

    /// Whether the CPU can go on with what it is about to do.
    pub(super) fn can_run(&self, stopped: &Stopped) -> bool {
        match stopped.at {
            Stop::Idle => false,
            _ if stopped.is_down() => false,
            // No reduction, so that no CPU waits: it takes another turn of its loop, or finds the
            // lock taken.
            _ if self.granularity == Granularity::Every => !stopped.waits_for_its_buffer(),
            Stop::Relax if self.granularity != Granularity::Access => !stopped.is_stuck,
            _ => stopped.can_go_on(|word| self.serial.ram().word(word)),
        }
    }

    /// Makes the step `choice`, and goes on with its CPU until another CPU could interfere.
    ///
    /// # Errors
    /// [`SpecimenError`] if the host fails, or a signal arrives. What the guest does is no error.
    pub fn advance(
        &mut self,
        choice: Choice,
        sharing: &mut Sharing,
    ) -> Result<Moved, SpecimenError> {
        let before = self.serial.entries();
        let moved = self.go_on(choice, sharing);
        self.stop_everywhere();
        let (stops, breach) = moved?;
        Ok(Moved {
            stops,
            entries: self.serial.entries() - before,
            breach,
        })
    }

    /// Makes the step `choice`, and goes on as [`Specimen::advance`]. Returns the number of stops,
    /// and what broke.
    fn go_on(
        &mut self,
        mut choice: Choice,
        sharing: &mut Sharing,
    ) -> Result<(u32, Option<Breach>), SpecimenError> {
        let cpu = choice.cpu;
        let mut stops = 0;
        loop {
            teach(&self.cpus, choice, sharing);
            self.pass_over(sharing);
            let (passed, breach) = self.step(choice, MOST_STOPS - 1 - stops)?;
            stops += passed + 1;
            if breach.is_some() || self.is_contended(cpu, sharing)? {
                self.tidy(cpu);
                self.try_turns()?;
                return Ok((stops, breach));
            }
            if stops >= MOST_STOPS {
                self.tidy(cpu);
                let breach = self.endless(cpu);
                return Ok((stops, breach));
            }
            self.passes_over(cpu);
            choice.act = Act::GoOn;
        }
    }

    /// What is broken if `cpu` has come to [`MOST_STOPS`] stops in one turn. Nothing, if other CPUs
    /// can go on: one of them may do what it waits for. As long as little is known about what CPUs
    /// share, the search does not know where to change to another CPU.
    pub(in crate::explore) fn endless(&self, cpu: usize) -> Option<Breach> {
        let is_alone = self.choices().iter().all(|choice| choice.cpu == cpu);
        is_alone.then(|| Breach::endless(cpu))
    }

    /// As [`Specimen::advance`], but only to the next stop, whether or not another CPU can
    /// interfere there. Returns what broke.
    ///
    /// # Errors
    /// As [`Specimen::advance`].
    pub fn follow(&mut self, choice: Choice) -> Result<Option<Breach>, SpecimenError> {
        let Ok(breach) = self.follow_by::<Infallible>(choice, &mut run)?;
        Ok(breach)
    }

    /// As [`Specimen::follow`], where `go` runs the vCPU. If that pauses, so does the step, and the
    /// machine is between two instructions: from there it can only be put into another state.
    pub(super) fn follow_by<P>(
        &mut self,
        choice: Choice,
        go: &mut Go<'_, P>,
    ) -> Result<Result<Option<Breach>, P>, SpecimenError> {
        let breach = match self.step_by(choice, 0, go)? {
            Ok((_, breach)) => breach,
            Err(paused) => return Ok(Err(paused)),
        };
        self.tidy(choice.cpu);
        self.try_turns()?;
        Ok(Ok(breach.or_else(|| self.sought_race())))
    }

    /// As [`Specimen::follow`], in a search. `sharing` learns from it.
    ///
    /// # Errors
    /// As [`Specimen::advance`].
    pub(super) fn advance_to_next_stop(
        &mut self,
        choice: Choice,
        sharing: &mut Sharing,
    ) -> Result<Moved, SpecimenError> {
        let before = self.serial.entries();
        teach(&self.cpus, choice, sharing);
        let breach = self.follow(choice)?;
        Ok(Moved {
            stops: 1,
            entries: self.serial.entries() - before,
            breach,
        })
    }

    /// Where accesses are not announced: finds out which of the CPUs that wait in loops would
    /// change nothing by another turn, by having each of them make it. Restores the present state.
    fn try_turns(&mut self) -> Result<(), SpecimenError> {
        if self.knows_accesses() {
            return Ok(());
        }
        let waits = |cpu: &usize| self.cpus[*cpu].at == Stop::Relax;
        let waiting: Vec<_> = (0..self.cpus.len()).filter(waits).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let before = self.save();
        let mut stuck = Vec::with_capacity(waiting.len());
        for cpu in waiting {
            let (_, breach) = self.step(Choice::go_on(cpu), 0)?;
            self.tidy(cpu);
            self.has_grown |= self.keep_written()?;
            let is_stuck = breach.is_none() && self.save().is_same(&before, cpu);
            self.mend()?;
            self.load(&before);
            stuck.push((cpu, is_stuck));
        }
        // Only after the last of them, since `load` overwrites this.
        for (cpu, is_stuck) in stuck {
            self.cpus[cpu].is_stuck = is_stuck;
        }
        Ok(())
    }

    /// Makes the step `choice`, to the next stop of its CPU at which it exits. Before, it may pass
    /// over `most` stops where that is allowed at all ([`Specimen::pass_over`]). Returns how many it
    /// has passed over, and what broke. What means nothing at a stop is still to be cleared
    /// ([`Specimen::tidy`]). That is done only at the end of a turn, or states would tell where on
    /// the way the CPU has exited.
    ///
    /// While the CPU runs, it finds in memory what it sees: its own store buffer lies over it.
    fn step(&mut self, choice: Choice, most: u32) -> Result<(u32, Option<Breach>), SpecimenError> {
        let Ok(stepped) = self.step_by::<Infallible>(choice, most, &mut run)?;
        Ok(stepped)
    }

    /// As [`Specimen::step`], where `go` runs the vCPU.
    fn step_by<P>(
        &mut self,
        choice: Choice,
        most: u32,
        go: &mut Go<'_, P>,
    ) -> Result<Result<Stepped, P>, SpecimenError> {
        let cpu = choice.cpu;
        self.left.clear();
        if choice.act == Act::Flush {
            self.flush(cpu);
            return Ok(Ok((0, None)));
        }
        if choice.act == Act::Arrive && self.arrives_as_init(cpu) {
            self.reset(cpu)?;
            return Ok(Ok((0, None)));
        }
        self.prepare(cpu)?;
        let overlay = self.lay_over(choice);
        // Behind a store that waits, a locked instruction is never passed over.
        let waits = overlay.makes_store() || !self.cpus[cpu].buffer.is_empty();
        let most = if waits { 0 } else { most };
        let was_in_handler = self.cpus[cpu].in_handler;
        let ran = match self.run(choice, most, go)? {
            Ok(ran) => ran,
            Err(paused) => {
                self.is_hurt = true;
                return Ok(Err(paused));
            }
        };
        self.take_back(cpu, overlay);
        let stopped = &mut self.cpus[cpu];
        let returned = was_in_handler && !stopped.in_handler;
        stopped.drains = (stopped.drains || returned) && !stopped.buffer.is_empty();
        Ok(Ok(ran))
    }

    /// Runs one CPU to its next stop by `go`, as [`Specimen::step_by`].
    fn run<P>(
        &mut self,
        choice: Choice,
        most: u32,
        go: &mut Go<'_, P>,
    ) -> Result<Result<Stepped, P>, SpecimenError> {
        let cpu = choice.cpu;
        let context = self.cpus[cpu].context();
        let depth = self.cpus[cpu].depth;
        let mut written = None;
        if let Some(vector) = choice.takes() {
            let waits = self.waits(cpu);
            let stopped = &mut self.cpus[cpu];
            if !stopped.in_handler {
                stopped.below = waits;
            }
            stopped.pending &= !bit(vector);
            // What it is about to do comes after the interrupt, and is announced again then.
            if stopped.at != Stop::Idle {
                stopped.repeats = true;
                self.serial.repeat(cpu);
            }
            self.serial
                .interrupt(cpu, vector)
                .map_err(kvm("deliver an interrupt"))?;
        } else if choice.act == Act::Arrive {
            self.start(cpu)?;
        } else {
            written = self.leave_stop(cpu);
        }
        let mut allowance = self.allowance(cpu, choice.takes().is_some(), most);
        let mut patience = Patience::default();
        let at = loop {
            self.check_end()?;
            self.tell(&allowance);
            let halt = match go(&mut self.serial, cpu) {
                Ok(halt) => halt,
                Err(paused) => return Ok(Err(paused)),
            };
            self.catch_up(cpu, &mut allowance)?;
            let passed = allowance.passed;
            if patience.is_over(&halt) {
                self.is_hurt = true;
                let text = format!("CPU {cpu} does not come to a stop");
                return Ok(Ok((passed, Some(Breach::new("livelock", text)))));
            }
            match halt {
                SerialExit::Reached { point, word } => match self.reached(cpu, point, word) {
                    Ok(at) => break at,
                    Err(breach) => return Ok(Ok((passed, Some(breach)))),
                },
                SerialExit::Done => {
                    self.note_answer(cpu);
                    self.give(cpu);
                }
                SerialExit::Dispatch(dispatch) => {
                    let (target, signal) = (dispatch.target as usize, Signal::of(dispatch));
                    let is_possible = match signal {
                        Signal::Interrupt(vector) => vector >= FIRST_VECTOR,
                        Signal::Init | Signal::StartUp(_) => true,
                    };
                    if target >= self.cpus.len() || !is_possible {
                        let signal = signal.name(&self.manifest().vectors);
                        let text = format!("CPU {cpu} sent {signal} to CPU {target}");
                        return Ok(Ok((passed, Some(Breach::new("died", text)))));
                    }
                    break Stop::Send { target, signal };
                }
                SerialExit::Other(_) | SerialExit::Interrupted | SerialExit::Busy => {}
                SerialExit::GuestExit(code) => {
                    self.is_hurt = true;
                    let text = format!("the guest ended on CPU {cpu} with {code:#x}");
                    return Ok(Ok((
                        passed,
                        Some(Breach::new("died", self.with_console(text))),
                    )));
                }
                SerialExit::Dead(death) => {
                    self.is_hurt = true;
                    let text = format!("the guest died on CPU {cpu}: {death}");
                    return Ok(Ok((
                        passed,
                        Some(Breach::new("died", self.with_console(text))),
                    )));
                }
            }
        };
        let regs = self.serial.regs(cpu);
        let in_handler = self.is_handling(cpu, regs.rsp);
        if !allowance.is_of(in_handler) {
            self.is_hurt = true;
            return Err(SpecimenError::OtherSituation { cpu });
        }
        let waits = self.waits(cpu);
        let left = written.map(|word| (word, self.serial.ram().word(word).unwrap_or(0)));
        let stopped = &mut self.cpus[cpu];
        if let Some((word, value)) = left {
            stopped.turns[context].find(depth, word, value);
        }
        stopped.regs = regs;
        stopped.at = at;
        stopped.in_handler = in_handler;
        stopped.repeats &= in_handler;
        if !in_handler {
            stopped.below = 0;
            stopped.turns[1] = Turns::default();
        }
        stopped.depth = Depth::of(waits, stopped.below);
        let depth = stopped.depth;
        let context = stopped.context();
        stopped.turns[context].leave_to(depth);
        let started = match choice.act {
            Act::Arrive => self.has_started(cpu)?,
            _ => None,
        };
        let breach = started
            .or_else(|| self.findings())
            .or_else(|| self.interrupts_on(cpu));
        Ok(Ok((allowance.passed, breach)))
    }

    /// How many nested loops `cpu` waits in, by the guest's own count.
    fn waits(&self, cpu: usize) -> u64 {
        self.serial.ram().word(self.waits_at[cpu]).unwrap_or(0)
    }

    /// The breach that a handler of `cpu` has enabled interrupts, if it has: the next interrupt
    /// would use the same stack.
    fn interrupts_on(&self, cpu: usize) -> Option<Breach> {
        let stopped = &self.cpus[cpu];
        let is_on = stopped.in_handler && stopped.regs.rflags & INTERRUPT_FLAG != 0;
        is_on.then(|| {
            let text = format!("a handler of CPU {cpu} runs with interrupts enabled");
            Breach::new(Breach::INTERRUPTS_ON, text)
        })
    }

    /// Whether `rsp` is on the handler stack of `cpu`.
    pub(super) fn is_handling(&self, cpu: usize, rsp: u64) -> bool {
        let [start, end] = self.contexts[cpu].handler;
        (start..end).contains(&rsp)
    }

    /// What happens between a stop and the first instruction after it. Returns the address of the
    /// word that the CPU writes, if its new value can matter to a loop that the CPU waits in.
    fn leave_stop(&mut self, cpu: usize) -> Option<u64> {
        let at = self.cpus[cpu].at;
        if let Stop::Send { target, signal } = at {
            // A store to the registers of an xAPIC stays behind earlier stores. The write to an MSR
            // of an x2APIC does not (SDM Vol. 3A, "MSR Access in x2APIC Mode").
            if self.is_xapic && !self.cpus[cpu].buffer.is_empty() {
                self.cpus[cpu].buffer.push(Entry::Ipi { target, signal });
            } else {
                self.cpus[target].is_sent(signal);
            }
        }
        if self.granularity == Granularity::Every {
            return None;
        }
        let read = match at {
            Stop::Access(_, address) => self.serial.ram().word(address & !7).unwrap_or(0),
            _ => 0,
        };
        self.cpus[cpu].leave(read)
    }

    /// The stop that `cpu` makes at `point`.
    ///
    /// # Errors
    /// A [`Breach`] if the guest announces something impossible.
    pub(super) fn reached(&mut self, cpu: usize, point: u64, word: u64) -> Result<Stop, Breach> {
        if Some(point) == self.stop_points.access {
            let Some(announced) = Access::from_word(word) else {
                let text = format!("CPU {cpu} is about to access {word:#x}, which is no access");
                return Err(Breach::new("died", text));
            };
            let Announced {
                kind,
                address,
                bytes,
                is_piece,
                manner,
            } = announced;
            let stopped = &mut self.cpus[cpu];
            (stopped.bytes, stopped.is_piece) = (bytes, is_piece);
            stopped.manner = manner;
            self.races.has_plain |= manner == Manner::Plain;
            return Ok(Stop::Access(kind, address));
        }
        if point == self.stop_points.idle {
            return Ok(Stop::Idle);
        }
        if self.stop_points.relax.contains(&point) {
            return Ok(Stop::Relax);
        }
        if self.stop_points.left == Some(point) {
            return Ok(Stop::Left);
        }
        match self.points.at(point) {
            Some(point) => Ok(Stop::Point(point.index)),
            None => Err(Breach::new(
                "died",
                format!("CPU {cpu} says it has come to {point:#x}, where no point is"),
            )),
        }
    }

    /// Whether other CPUs can interfere with `cpu` where it is.
    ///
    /// # Errors
    /// [`SpecimenError::Piece`] if they can interfere with a part of what it accesses as a whole.
    pub(super) fn is_contended(
        &self,
        cpu: usize,
        sharing: &mut Sharing,
    ) -> Result<bool, SpecimenError> {
        let stopped = &self.cpus[cpu];
        let is_contended = self.granularity == Granularity::Every
            || stopped.is_contended(cpu, sharing, &self.buffering);
        match stopped.at {
            Stop::Access(_, address) if stopped.is_piece && is_contended => {
                Err(SpecimenError::Piece {
                    cpu,
                    address,
                    place: self.place(cpu),
                })
            }
            _ => Ok(is_contended),
        }
    }

    /// Notes the answer of `cpu` to its last command. The next command overwrites it.
    fn note_answer(&mut self, cpu: usize) {
        let id = u32::try_from(cpu).unwrap_or(u32::MAX);
        let (Some(mailbox), Some(deed)) =
            (self.lab.mailbox(id), self.cpus[cpu].given.checked_sub(1))
        else {
            return;
        };
        // The guest can ring the doorbell without having done anything.
        if mailbox.done == self.cpus[cpu].given as u64 {
            self.answers
                .note(cpu, deed, DeedRefusal::check(mailbox.result));
        }
    }

    /// Gives `cpu` its next command. Returns whether there was one.
    pub(super) fn give(&mut self, cpu: usize) -> bool {
        let given = self.cpus[cpu].given;
        let Some(command) = self.programs[cpu].get(given) else {
            return false;
        };
        self.cpus[cpu].given = given + 1;
        let id = u32::try_from(cpu).unwrap_or(u32::MAX);
        self.lab.post(id, given as u64 + 1, command);
        true
    }

    /// Arms the points at which a search stops CPUs; with `on` false, only those at which CPUs are
    /// idle or leave.
    pub(super) fn arm(&mut self, on: bool) {
        let mut arms = Arms::default();
        for point in self.points.iter() {
            let StopPoints { idle, left, .. } = &self.stop_points;
            let always = point.address == *idle || *left == Some(point.address);
            // By name, since `stop_points.access` is empty if the search does not want it.
            let is_access = point.name == stop::NAME;
            let relaxes = self.stop_points.relax.contains(&point.address);
            let wanted = match self.granularity {
                Granularity::Probe => !is_access,
                Granularity::Access | Granularity::Every => relaxes || is_access,
            };
            let armed = always || (on && wanted);
            self.lab
                .arm_point(point.armed_address(), if armed { HELD } else { 0 });
            if armed {
                arms[point.index / 64] |= 1 << (point.index % 64);
            }
        }
        for cpu in 0..self.lab.cpus() {
            self.lab.arm(cpu, &arms);
        }
    }
}
