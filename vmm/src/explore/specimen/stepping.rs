//! One step: which there are, and what a CPU does from one stop to the next. Who takes the next one is for others
//! to choose.

use std::time::{Duration, Instant};

use shared::probe::{Arms, HELD};
use shared::stop::{self, Access, Kind};

use super::stopped::{FIRST_VECTOR, bit};
use super::{Breach, Moved, Specimen, SpecimenError, Stop, Stopped, kvm};
use crate::explore::schedule::{Choice, Granularity};
use crate::explore::sharing::Sharing;
use crate::machine::ram::PAGE;
use crate::machine::serial::Halt;

/// How long a CPU may go on without coming to a stop. One that is sound does within microseconds.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(10);

/// Stops in one turn after which a CPU is said to go round and round.
pub const ENDLESS: u32 = 100_000;

/// The point at which a handler says that it has begun.
pub(super) const HANDLER: &str = "irq.enter";

impl Specimen {
    /// The choices there are. None means that it is over.
    pub fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        for (cpu, stopped) in self.cpus.iter().enumerate() {
            if self.can_run(stopped) {
                choices.push(Choice { cpu, takes: None });
            }
            // Behind the instruction by which an IPI leaves nothing happens that others see before the next
            // stop, so that interrupts can as well be taken there.
            let takes = stopped.irqs_on() && !matches!(stopped.at, Stop::Left | Stop::Send { .. });
            if takes {
                // The highest first, as it is when they arrive together.
                let mut pending: Vec<_> = stopped.pending().collect();
                pending.reverse();
                choices.extend(pending.into_iter().map(|vector| Choice {
                    cpu,
                    takes: Some(vector),
                }));
            }
        }
        choices
    }

    pub(super) fn can_run(&self, stopped: &Stopped) -> bool {
        match stopped.at {
            Stop::Idle | Stop::Left => false,
            Stop::Relax => match stopped.waits_since {
                Some(before) => self.shared_memory() != before,
                None => {
                    let ram = self.serial.ram();
                    (stopped.seen[stopped.context()].iter())
                        .any(|(word, value)| ram.word(*word) != Some(*value))
                }
            },
            Stop::Access(Kind::Lock, address) => self.half_word(address) == 0,
            Stop::Access(..) | Stop::Send { .. } | Stop::Point(_) | Stop::Instruction(_) => true,
        }
    }

    /// The four bytes at `address`.
    pub(super) fn half_word(&self, address: u64) -> u32 {
        let word = self.serial.ram().word(address & !7).unwrap_or(0);
        let bytes = word >> (address % 8 * 8) & u64::from(u32::MAX);
        u32::try_from(bytes).unwrap_or(0)
    }

    /// Does what `choice` says, and goes on as long as nobody can get in the way of that CPU.
    ///
    /// # Errors
    /// [`SpecimenError`] if the host fails, or a signal comes. What the guest does is no error.
    pub fn advance(
        &mut self,
        choice: Choice,
        sharing: &mut Sharing,
    ) -> Result<Moved, SpecimenError> {
        let mut choice = choice;
        let mut stops = 0;
        loop {
            if let (None, Stop::Send { target, .. }) = (choice.takes, self.cpus[choice.cpu].at) {
                sharing.interrupts(target);
            }
            let breach = self.step(choice)?;
            stops += 1;
            if breach.is_some() || self.is_contended(choice.cpu, sharing) {
                self.tidy(choice.cpu);
                return Ok(Moved { stops, breach });
            }
            if stops == ENDLESS {
                self.tidy(choice.cpu);
                let breach = self.endless(choice.cpu);
                return Ok(Moved { stops, breach });
            }
            choice.takes = None;
        }
    }

    /// What it means that `cpu` has come to [`ENDLESS`] stops in one turn: nothing, if others could still do what it
    /// perhaps waits for. As long as little is known of what CPUs share, it is not known whose turn it is.
    pub(in crate::explore) fn endless(&self, cpu: usize) -> Option<Breach> {
        let is_alone = self.choices().iter().all(|choice| choice.cpu == cpu);
        is_alone.then(|| Breach::endless(cpu))
    }

    /// As [`Specimen::advance`], but only to the next stop, whether anybody can get in the way there or not.
    /// Returns what broke.
    ///
    /// # Errors
    /// As [`Specimen::advance`].
    pub fn follow(&mut self, choice: Choice) -> Result<Option<Breach>, SpecimenError> {
        let breach = self.step(choice)?;
        self.tidy(choice.cpu);
        Ok(breach)
    }

    /// Runs one CPU to its next stop.
    fn step(&mut self, choice: Choice) -> Result<Option<Breach>, SpecimenError> {
        self.check_end()?;
        let cpu = choice.cpu;
        // One that sleeps is not stepped out of its sleep, of which not every KVM knows an end then, but runs
        // to where its handler says that it has begun.
        let stepping =
            self.granularity == Granularity::Instruction && self.cpus[cpu].at != Stop::Idle;
        if let Some(vector) = choice.takes {
            let stopped = &mut self.cpus[cpu];
            stopped.pending &= !bit(vector);
            // What it is about to do comes behind the interrupt, and is announced once more then.
            if !matches!(stopped.at, Stop::Idle | Stop::Instruction(_)) {
                stopped.repeats = true;
                self.serial.repeat(cpu);
            }
            self.cpus[cpu].seen[1].clear();
            self.serial
                .interrupt(cpu, vector)
                .map_err(kvm("deliver an interrupt"))?;
        } else {
            self.leave_stop(cpu);
        }
        let begun = Instant::now();
        let at = loop {
            self.check_end()?;
            if begun.elapsed() >= STEP_LIMIT {
                let limit = STEP_LIMIT.as_secs();
                let text = format!("CPU {cpu} has not come to a stop for {limit} s");
                return Ok(Some(Breach::new("livelock", text)));
            }
            if stepping {
                self.serial
                    .set_step(cpu)
                    .map_err(kvm("execute a single instruction"))?;
            }
            match self.serial.run(cpu) {
                Halt::Reached { point, word } => match self.reached(cpu, point, word) {
                    Ok(Some(at)) => break at,
                    Ok(None) => {}
                    Err(breach) => return Ok(Some(breach)),
                },
                Halt::Done => {
                    self.give(cpu);
                }
                Halt::Dispatch(dispatch) => {
                    let (target, vector) = (dispatch.target as usize, dispatch.vector);
                    if target >= self.cpus.len() || vector < FIRST_VECTOR {
                        let text = format!("CPU {cpu} sent {vector:#x} to CPU {target}");
                        return Ok(Some(Breach::new("died", text)));
                    }
                    break Stop::Send { target, vector };
                }
                Halt::Stepped => {
                    let regs = self.serial.regs(cpu);
                    // An interrupt that was sent and not yet taken is a state of the local APIC.
                    let is_on_its_way = choice.takes.is_some() && !self.is_handling(cpu, regs.rsp);
                    if !is_on_its_way && !self.is_half_way(regs.rip) {
                        break Stop::Instruction(regs.rip);
                    }
                }
                Halt::Other(_) | Halt::Interrupted => {}
                Halt::GuestExit(code) => {
                    let text = format!("the guest ended on CPU {cpu} with {code:#x}");
                    return Ok(Some(Breach::new("died", self.with_console(text))));
                }
                Halt::Dead(death) => {
                    let text = format!("the guest died on CPU {cpu}: {death}");
                    return Ok(Some(Breach::new("died", self.with_console(text))));
                }
            }
        };
        let regs = self.serial.regs(cpu);
        let in_handler = self.is_handling(cpu, regs.rsp);
        let waits = at == Stop::Relax && self.known.access.is_none();
        let waits_since = waits.then(|| self.shared_memory());
        let stopped = &mut self.cpus[cpu];
        stopped.regs = regs;
        stopped.at = at;
        stopped.in_handler = in_handler;
        // One that comes back to where it waited waits for what it waited for before.
        let comes_back = stopped.repeats && !in_handler;
        stopped.repeats &= in_handler;
        if !comes_back {
            stopped.waits_since = waits_since;
        }
        Ok(self.findings())
    }

    /// Whether `rsp` is on the stack of the handlers of `cpu`.
    pub(super) fn is_handling(&self, cpu: usize, rsp: u64) -> bool {
        let [start, end] = self.stacks[cpu].handler;
        (start..end).contains(&rsp)
    }

    /// Whether a CPU that has come to `rip` by one step has just enabled interrupts, or halted: it is then in a
    /// state that is more than its registers, until the next instruction.
    pub(super) fn is_half_way(&self, rip: u64) -> bool {
        const STI: u8 = 0xfb;
        const HLT: u8 = 0xf4;
        let last = usize::try_from(rip.wrapping_sub(1)).unwrap_or(usize::MAX);
        let ram = self.serial.ram();
        let (number, offset) = (last / PAGE, last % PAGE);
        number < ram.pages() && [STI, HLT].contains(&ram.page(number)[offset])
    }

    /// What happens between a stop and the first instruction behind it.
    pub(super) fn leave_stop(&mut self, cpu: usize) {
        let at = self.cpus[cpu].at;
        let word = match at {
            Stop::Access(_, address) => self.serial.ram().word(address & !7),
            _ => None,
        };
        let stopped = &mut self.cpus[cpu];
        let context = stopped.context();
        let (locks, seen) = (&mut stopped.locks[context], &mut stopped.seen[context]);
        match at {
            Stop::Access(Kind::Load, address) => {
                let address = address & !7;
                let value = word.unwrap_or(0);
                match seen.iter_mut().find(|(seen, _)| *seen == address) {
                    Some((_, old)) => *old = value,
                    None => seen.push((address, value)),
                }
            }
            Stop::Access(kind, address) => {
                seen.clear();
                match kind {
                    Kind::Lock => {
                        locks.push(address);
                        stopped.taking = Some(address);
                    }
                    Kind::Store => locks.retain(|lock| *lock != address),
                    _ => {}
                }
            }
            Stop::Send { target, vector } => {
                seen.clear();
                self.cpus[target].pending |= bit(vector);
            }
            // It waits for what it reads in the turn that begins here. What it has read before must not bring it
            // back again and again.
            Stop::Relax => seen.clear(),
            _ => {}
        }
    }

    /// What it means that `cpu` has come to `point`: a stop, or nothing.
    pub(super) fn reached(
        &mut self,
        cpu: usize,
        point: u64,
        word: u64,
    ) -> Result<Option<Stop>, Breach> {
        if Some(point) == self.known.access {
            let Some((kind, address)) = Access::from_word(word) else {
                let text = format!("CPU {cpu} is about to access {word:#x}, which is no access");
                return Err(Breach::new("died", text));
            };
            let stopped = &mut self.cpus[cpu];
            // The lock is free, and one exchange takes it.
            if kind == Kind::ReadModifyWrite && stopped.taking.take() == Some(address) {
                return Ok(None);
            }
            return Ok(Some(Stop::Access(kind, address)));
        }
        if point == self.known.idle {
            return Ok(Some(Stop::Idle));
        }
        if self.known.relax.contains(&point) {
            return Ok(Some(Stop::Relax));
        }
        if point == self.known.left {
            return Ok(Some(Stop::Left));
        }
        match self.points.at(point) {
            Some(point) => Ok(Some(Stop::Point(point.index))),
            None => Err(Breach::new(
                "died",
                format!("CPU {cpu} says it has come to {point:#x}, where no point is"),
            )),
        }
    }

    /// Whether others can get in the way of `cpu` where it is.
    pub(super) fn is_contended(&self, cpu: usize, sharing: &mut Sharing) -> bool {
        let stopped = &self.cpus[cpu];
        let locks = &stopped.locks[stopped.context()];
        match stopped.at {
            Stop::Access(Kind::IrqsOff, _) => sharing.is_interrupted(cpu),
            // Whoever wants the lock waits for it to be let go, and can do nothing else with it.
            Stop::Access(Kind::Store, address) if locks.contains(&address) => false,
            Stop::Access(kind, address) => {
                sharing.conflicts(stopped.who(cpu), kind, address, locks)
            }
            _ => true,
        }
    }

    /// Gives `cpu` its next command, if it has one.
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

    /// Has CPUs stop where a search wants them to, or only where they are idle.
    pub(super) fn arm(&mut self, on: bool) {
        let mut arms = Arms::default();
        for point in self.points.iter() {
            let always = point.address == self.known.idle || point.address == self.known.left;
            // Known by its name: `known.access` says whether the search wants it.
            let is_access = point.name == stop::NAME;
            let relaxes = self.known.relax.contains(&point.address);
            let wanted = match self.granularity {
                Granularity::Probe => !is_access,
                Granularity::Access => relaxes || is_access,
                Granularity::Instruction => relaxes || point.name == HANDLER,
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
