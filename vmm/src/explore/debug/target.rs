//! A recording as gdb sees it: threads, which are CPUs, with their registers and memory as they are at the
//! present position. Nothing can be written: it would be another recording from there on.

use gdbstub::common::Tid;
use gdbstub::outputln;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{MultiThreadBase, MultiThreadResumeOps};
use gdbstub::target::ext::base::single_register_access::{
    SingleRegisterAccess, SingleRegisterAccessOps,
};
use gdbstub::target::ext::breakpoints::BreakpointsOps;
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{self, TargetError, TargetResult};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::errno;

use super::moving::Search;
use super::recording::{Recording, RecordingError};
use super::search::Watch;
use crate::control_characters::{spell_out, spell_out_all};
use crate::gdb::{RegisterFile, RegisterId, VcpuArch, VcpuRegisters, cpu_of, thread_of};
use crate::machine::debugged::Debugged;

/// Why nothing is written.
const READ_ONLY: &str = "a recording can be looked at, and not be changed: it would be another one from \
                         here on";

/// The recording that is debugged.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub recording: &'a mut Recording,
    /// The addresses of the breakpoints.
    pub breakpoints: Vec<u64>,
    /// What gdb wants to be watched.
    pub watches: Vec<Watch>,
    /// What the recording watches for. gdb removes all it wants at each stop, and sets it again.
    pub watched: Vec<Watch>,
    /// The CPU that is to take a step when gdb has the machine go on.
    pub stepping: Option<u32>,
    /// What the machine is doing, while gdb waits.
    pub search: Option<Search>,
    /// Whether addresses are those of guest memory, and not of a CPU.
    pub is_physical: bool,
    /// Why the last thing was refused that gdb asked for: gdb itself is told a number.
    pub refused: Option<String>,
}

impl<'a> Target<'a> {
    /// The machine of `recording`, where it is.
    pub fn new(recording: &'a mut Recording) -> Self {
        Self {
            recording,
            breakpoints: Vec::new(),
            watches: Vec::new(),
            watched: Vec::new(),
            stepping: None,
            search: None,
            is_physical: false,
            refused: None,
        }
    }

    /// Refuses something that gdb can do without, and remembers why.
    pub fn refuse<T>(&mut self, why: &str) -> TargetResult<T, Self> {
        self.refused = Some(why.to_owned());
        Err(TargetError::NonFatal)
    }

    fn on<T>(
        &mut self,
        cpu: u32,
        body: impl FnOnce(&Debugged<'_>) -> Result<T, errno::Error>,
    ) -> TargetResult<T, Self> {
        if cpu >= self.recording.cpus() {
            return self.refuse(&format!("there is no CPU {cpu}"));
        }
        let looked = self.recording.look(cpu, body);
        match looked.map_err(|error| TargetError::Fatal(error.into()))? {
            Ok(done) => Ok(done),
            Err(error) => self.refuse(&format!("KVM does not show CPU {cpu}: {error}")),
        }
    }

    /// Where `address` is in guest memory, as the CPU addresses it that goes on.
    pub fn translate(&mut self, address: u64) -> TargetResult<Option<u64>, Self> {
        if self.is_physical {
            return Ok(Some(address));
        }
        let cpu = self.recording.cpu_at(self.recording.position());
        self.on(cpu, |debugged| Ok(debugged.translate(address)))
    }

    /// The registers of `cpu`.
    pub fn registers(&mut self, cpu: u32) -> TargetResult<VcpuRegisters, Self> {
        self.on(cpu, |debugged| VcpuRegisters::read(debugged.vcpu.fd()))
    }
}

impl target::Target for Target<'_> {
    type Arch = VcpuArch;
    type Error = RecordingError;

    fn base_ops(&mut self) -> BaseOps<'_, VcpuArch, RecordingError> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Target<'_> {
    fn read_registers(&mut self, file: &mut RegisterFile, thread: Tid) -> TargetResult<(), Self> {
        *file = self.registers(cpu_of(thread))?.file();
        Ok(())
    }

    fn write_registers(&mut self, _: &RegisterFile, _: Tid) -> TargetResult<(), Self> {
        self.refuse(READ_ONLY)
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(
        &mut self,
        start: u64,
        data: &mut [u8],
        thread: Tid,
    ) -> TargetResult<usize, Self> {
        let is_physical = self.is_physical;
        let read = self.on(cpu_of(thread), |debugged| {
            Ok(match is_physical {
                true => {
                    let read = debugged.memory.read(data, GuestAddress(start));
                    read.unwrap_or(0)
                }
                false => {
                    let bytes = debugged.read(start, data.len(), |_, _| {});
                    data[..bytes.len()].copy_from_slice(&bytes);
                    bytes.len()
                }
            })
        })?;
        match read == 0 && !data.is_empty() {
            true => self.refuse(&format!("there is no memory at {start:#x}")),
            false => Ok(read),
        }
    }

    fn write_addrs(&mut self, _: u64, _: &[u8], _: Tid) -> TargetResult<(), Self> {
        self.refuse(READ_ONLY)
    }

    fn list_active_threads(
        &mut self,
        thread_is_active: &mut dyn FnMut(Tid),
    ) -> Result<(), RecordingError> {
        // gdb takes the first one for the one that has stopped.
        let first = self.recording.cpu_at(self.recording.position());
        let others = (0..self.recording.cpus()).filter(|cpu| *cpu != first);
        std::iter::once(first)
            .chain(others)
            .for_each(|cpu| thread_is_active(thread_of(cpu)));
        Ok(())
    }

    fn is_thread_alive(&mut self, thread: Tid) -> Result<bool, RecordingError> {
        Ok(cpu_of(thread) < self.recording.cpus())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Target<'_> {
    fn read_register(
        &mut self,
        thread: Tid,
        register: RegisterId,
        buffer: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let bytes = self.registers(cpu_of(thread))?.bytes(&register);
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_register(&mut self, _: Tid, _: RegisterId, _: &[u8]) -> TargetResult<(), Self> {
        self.refuse(READ_ONLY)
    }
}

impl ThreadExtraInfo for Target<'_> {
    fn thread_extra_info(&self, thread: Tid, buffer: &mut [u8]) -> Result<usize, RecordingError> {
        let cpu = cpu_of(thread);
        let at = self.recording.position();
        let text = match () {
            () if cpu >= self.recording.cpus() => format!("no CPU {cpu}"),
            () if self.recording.cpu_at(at) != cpu || at == self.recording.end() => {
                format!("CPU {cpu}, {}", self.recording.stop_of(cpu))
            }
            () if at.instruction > 0 => format!("CPU {cpu} runs"),
            () => format!("CPU {cpu} goes on, {}", self.recording.stop_of(cpu)),
        };
        let text = spell_out_all(&text);
        let length = text.len().min(buffer.len());
        buffer[..length].copy_from_slice(&text.as_bytes()[..length]);
        Ok(length)
    }
}

impl MonitorCmd for Target<'_> {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), RecordingError> {
        let command = String::from_utf8_lossy(command).into_owned();
        let words: Vec<_> = command.split_whitespace().collect();
        let text = self.monitor(&words)?;
        // Names and what the guest has printed are the image's, and gdb shows them as they are.
        outputln!(out, "{}", spell_out(text.trim_end()));
        Ok(())
    }
}
