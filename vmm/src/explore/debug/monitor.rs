//! What gdb has no words for: the turns of a recording, where it is, and what breaks (`monitor …`).

use gdbstub::arch::Registers;
use gdbstub::target::TargetError;
use xxhash_rust::xxh3::Xxh3;

use super::recording::{Position, RecordingError};
use super::target::Target;
use crate::explore::key::to_hex;

/// What there is.
const HELP: &str = "\
turns          the turns, with the present one
goto TURN      to where a turn begins, counted from 1; TURN.N is behind its Nth stop, end is the end
where          the present turn, stop and instruction
address NAME   the address of a word that is named like this in the turns
breaks         what breaks at the end
pieces         the steps whose instructions are not told apart on this host
hash           hashes of memory and of all registers here
physical on    addresses are those of guest memory from now on; off undoes it
why            why the last thing was refused
After goto, have gdb forget what it knows: maintenance flush register-cache (and dcache). goto-turn of
scenarios/gdb/recording.gdb does both.";

impl Target<'_> {
    /// What there is to say to `words`.
    ///
    /// # Errors
    /// [`RecordingError`] if the machine cannot be put where it is to be.
    pub fn monitor(&mut self, words: &[&str]) -> Result<String, RecordingError> {
        Ok(match words {
            ["turns"] => self.turns(),
            ["where"] => self.place(),
            ["goto", to] => match self.position_of(to) {
                Some(to) => {
                    self.recording.go_to(to)?;
                    self.place()
                }
                None => {
                    let turns = self.recording.story().scenes.len();
                    format!(
                        "there is no \"{to}\"; turns are 1 to {turns}, and 3.2 is behind the second stop of turn 3"
                    )
                }
            },
            ["address", name] => match self.recording.address(name) {
                Some(address) => format!("{address:#x}"),
                None => format!("no CPU stops before an access to a word \"{name}\""),
            },
            ["breaks"] => match self.recording.breach() {
                Some(breach) => breach.texts.join("\n"),
                None => "nothing".to_owned(),
            },
            ["pieces"] => match self.recording.pieces()?.join("\n") {
                none if none.is_empty() => "none".to_owned(),
                pieces => pieces,
            },
            ["hash"] => self.hashes()?,
            ["physical", "on"] => {
                self.is_physical = true;
                "addresses are those of guest memory now".to_owned()
            }
            ["physical", "off"] => {
                self.is_physical = false;
                "addresses are those of the thread now".to_owned()
            }
            ["why"] => {
                let nothing = || "nothing was refused".to_owned();
                self.refused.clone().unwrap_or_else(nothing)
            }
            _ => HELP.to_owned(),
        })
    }

    fn position_of(&self, text: &str) -> Option<Position> {
        if text == "end" {
            return Some(self.recording.end());
        }
        let (turn, stops) = text.split_once('.').unwrap_or((text, "0"));
        let turn: usize = turn.parse().ok()?;
        self.recording
            .turn(turn.checked_sub(1)?, stops.parse().ok()?)
    }

    /// The turns as `vmm replay` draws them, with an arrow at the present one.
    fn turns(&self) -> String {
        let present = self.recording.turn_at(self.recording.position());
        let number = present.map(|(turn, _)| format!("{:>4}  ", turn + 1));
        let is_present =
            |line: &str| matches!(&number, Some(number) if line.starts_with(number.as_str()));
        let story = self.recording.story().to_string();
        let mut text = String::new();
        for line in story.lines() {
            text += if is_present(line) { "=>" } else { "  " };
            text += line;
            text.push('\n');
        }
        if number.is_none() {
            text += "=> end\n";
        }
        text
    }

    /// Where the recording is.
    fn place(&self) -> String {
        let at = self.recording.position();
        let Some((turn, stop)) = self.recording.turn_at(at) else {
            return "at the end".to_owned();
        };
        let cpu = self.recording.cpu_at(at);
        let mut text = format!("turn {} of CPU {cpu}", turn + 1);
        let instructions = match at.instruction {
            1 => "1 instruction".to_owned(),
            more => format!("{more} instructions"),
        };
        text += &match (stop, at.instruction) {
            (0, 0) => ", at its beginning".to_owned(),
            (0, _) => format!(", {instructions} behind its beginning"),
            (stop, 0) => format!(", at its stop {stop}"),
            (stop, _) => format!(", {instructions} behind its stop {stop}"),
        };
        text
    }

    fn hashes(&mut self) -> Result<String, RecordingError> {
        let mut hash = Xxh3::new();
        for cpu in 0..self.recording.cpus() {
            match self.registers(cpu) {
                Ok(registers) => registers
                    .file()
                    .gdb_serialize(|byte| hash.update(&[byte.unwrap_or(0)])),
                Err(TargetError::Fatal(error)) => return Err(error),
                Err(_) => return Ok(format!("KVM does not show CPU {cpu}; see monitor why")),
            }
        }
        let (memory, registers) = (self.recording.memory_hash(), hash.digest128());
        Ok(format!(
            "memory {}, registers {}",
            to_hex(memory),
            to_hex(registers)
        ))
    }
}
