//! Judges a state: what the guest's oracles have found, what the guest finds when it is told to end
//! its workload, and what the VMM finds in the guest's ledger.

use shared::exit::ExitCode;

use super::breach::Breach;
use super::errors::{SpecimenError, kvm};
use super::machine::Specimen;
use super::stepping::Patience;
use super::stopped::Stop;
use crate::cpus::CpuSet;
use crate::lab::judge::{self};
use crate::lab::judgement::Judgement;
use crate::lab::oracles::Property;
use crate::machine::serial::SerialExit;

impl Specimen {
    /// What the guest's own oracles have found.
    pub(super) fn findings(&self) -> Option<Breach> {
        let at = self.lab.findings_made_at();
        let word = self.serial.ram().word(at & !7)?;
        if word >> (at % 8 * 8) & u64::from(u32::MAX) == 0 {
            return None;
        }
        Breach::of(&Judgement::on_the_way(&self.lab), self.lab.manifest())
    }

    /// `text`, followed by what the guest has printed.
    pub(super) fn with_console(&self, text: String) -> String {
        let said = self.serial.devices().console().take();
        let said = String::from_utf8_lossy(&said);
        match said.trim() {
            "" => text,
            said => format!("{text}\n{said}"),
        }
    }

    /// What is broken in the present state, in which no CPU can go on.
    ///
    /// # Errors
    /// As [`Specimen::advance`].
    pub fn judge(&mut self) -> Result<Option<Breach>, SpecimenError> {
        let waiting: Vec<_> = (0..self.cpus.len())
            .filter(|cpu| !self.is_done(*cpu))
            .collect();
        if waiting.is_empty() {
            return self.finish();
        }
        let cpus: CpuSet = waiting.iter().map(|cpu| *cpu as u32).collect();
        let text = format!("{} waits for ever", cpus.noun());
        let mut breach = Breach::new("hang", text);
        for open in judge::open_calls(&self.lab).first {
            let record = &open.0;
            let is_lost = !record.targets.without(&record.ran).is_empty();
            let name = if is_lost {
                Property::Lost.name()
            } else {
                "hang"
            };
            breach.add(name, open.to_string());
        }
        Ok(Some(breach))
    }

    /// Whether every CPU has done everything it was told, has no interrupt left to take, and has
    /// brought all its stores to memory.
    pub fn is_over(&self) -> bool {
        (0..self.cpus.len()).all(|cpu| {
            let stopped = &self.cpus[cpu];
            let is_at_rest = match stopped.at {
                Stop::Idle => stopped.pending().next().is_none(),
                // It waits for a command with its interrupts off, or without sleeping.
                Stop::Relax => {
                    let is_interrupted = stopped.irqs_on() && stopped.pending().next().is_some();
                    !stopped.in_handler && !is_interrupted
                }
                _ => stopped.is_down(),
            };
            is_at_rest
                && stopped.arriving.is_empty()
                && stopped.buffer.is_empty()
                && self.is_done(cpu)
        })
    }

    /// Whether `cpu` has done everything it was told.
    pub(super) fn is_done(&self, cpu: usize) -> bool {
        let id = u32::try_from(cpu).unwrap_or(u32::MAX);
        let done = self.lab.mailbox(id).map_or(0, |mailbox| mailbox.done);
        self.cpus[cpu].is_down() || done == self.programs[cpu].len() as u64
    }

    /// Has the guest end its workload, and judges what it finds and what is in its ledger. Restores
    /// the present state afterwards.
    pub(super) fn finish(&mut self) -> Result<Option<Breach>, SpecimenError> {
        // Pages written until now were written by the schedule; later ones were not.
        self.has_grown |= self.keep_written()?;
        let before = self.save();
        // Many schedules lead to few final states, and judging one takes as long as a schedule.
        if self.sound_ends.contains(&before.key()) {
            return Ok(None);
        }
        self.arm(false);
        let breach = self.run_to_end();
        self.arm(true);
        self.restore_rest()?;
        self.keep_written()?;
        self.load(&before);
        // Discard what the guest has printed meanwhile.
        let _ = self.serial.devices().console().take();
        if let Ok(None) = breach {
            self.sound_ends.insert(before.key());
        }
        breach
    }

    /// Tells all CPUs that are not down to end the workload, and runs them one at a time until the
    /// guest ends. Returns what broke.
    pub(super) fn run_to_end(&mut self) -> Result<Option<Breach>, SpecimenError> {
        let cpus: Vec<_> = (0..self.cpus.len())
            .filter(|cpu| !self.cpus[*cpu].is_down())
            .collect();
        let mask: CpuSet = cpus.iter().map(|cpu| *cpu as u32).collect();
        let command = self.lab.manifest().ending(mask);
        let command = command.ok_or(SpecimenError::NoEnding)?;
        for &cpu in &cpus {
            self.prepare(cpu)?;
            let id = u32::try_from(cpu).unwrap_or(u32::MAX);
            self.lab.post(id, self.cpus[cpu].given as u64 + 1, &command);
            // Interrupts that are still pending because it had interrupts off arrive now.
            for vector in self.cpus[cpu].pending() {
                self.serial
                    .interrupt(cpu, vector)
                    .map_err(kvm("deliver an interrupt"))?;
            }
            self.serial
                .interrupt(cpu, self.lab.manifest().wake_vector())
                .map_err(kvm("deliver an interrupt"))?;
        }
        let mut patience = Patience::default();
        loop {
            let mut has_moved = false;
            for &cpu in &cpus {
                // A CPU that spins has interrupts off, and finds its command without one.
                let spins = self.cpus[cpu].at != Stop::Idle && !has_moved;
                let wakes = self
                    .serial
                    .is_interrupted(cpu)
                    .map_err(kvm("show an APIC"))?;
                if !spins && !wakes {
                    continue;
                }
                has_moved = true;
                loop {
                    self.check_end()?;
                    let halt = self.serial.run(cpu);
                    if patience.is_over(&halt) {
                        let text = "the guest does not come to its end".to_owned();
                        return Ok(Some(Breach::new("hang", text)));
                    }
                    match halt {
                        SerialExit::Reached { .. } => break,
                        SerialExit::Dispatch(dispatch) => {
                            let target = dispatch.target as usize;
                            if target < self.cpus.len() {
                                self.serial
                                    .deliver(dispatch)
                                    .map_err(kvm("deliver an interrupt"))?;
                            }
                        }
                        SerialExit::Done
                        | SerialExit::Other(_)
                        | SerialExit::Interrupted
                        | SerialExit::Busy => {}
                        SerialExit::GuestExit(code) => return Ok(self.ended(cpu, code)),
                        SerialExit::Dead(death) => {
                            let text = format!("the guest died on CPU {cpu}: {death}");
                            return Ok(Some(Breach::new("died", self.with_console(text))));
                        }
                    }
                }
            }
            if !has_moved {
                let text = "the guest does not come to its end".to_owned();
                return Ok(Some(Breach::new("hang", text)));
            }
        }
    }

    /// What broke, if the guest ended with `code` on `cpu` after it was told to end the workload.
    fn ended(&self, cpu: usize, code: u32) -> Option<Breach> {
        let died = || {
            let text = format!("the guest ended on CPU {cpu} with {code:#x}");
            Breach::new("died", self.with_console(text))
        };
        match ExitCode::try_from(code) {
            Ok(ExitCode::Pass) => self.verdict(),
            // What it has found is in the lab.
            Ok(ExitCode::Fail) => self.verdict().or_else(|| Some(died())),
            Ok(ExitCode::Panic | ExitCode::BadOptions | ExitCode::BadMachine) | Err(_) => {
                Some(died())
            }
        }
    }

    /// What the guest found at its end, and what the VMM finds in the ledger.
    pub(super) fn verdict(&self) -> Option<Breach> {
        let judgement = Judgement::on_end(&self.lab, &CpuSet::default());
        Breach::of(&judgement, self.lab.manifest())
    }
}
