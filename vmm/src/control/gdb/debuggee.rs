//! A machine as gdb sees it: threads, which are vCPUs, their registers, and memory as each addresses it.
//! vCPUs are looked at and changed while they are stopped, and everything goes by the [`Operator`].

use std::sync::Arc;

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
use gdbstub::target::{Target, TargetError, TargetResult};
use vm_memory::{Bytes, GuestAddress};

use super::Monitor;
use super::breakpoints::Placed;
use super::resuming::Resumption;
use crate::chain;
use crate::control::operator::{Operator, OperatorError};
use crate::control::socket::answer_of;
use crate::gdb::{
    NotChanged, RegisterFile, RegisterId, VcpuArch, VcpuRegisters, cpu_of, thread_of,
};
use crate::machine::debugged::Debugged;
use crate::machine::inspect::{Activity, VcpuDump};
use crate::machine::lifecycle::{Stall, State};

/// The machine that is debugged.
#[derive(Debug)]
pub(super) struct Debuggee<'a> {
    pub operator: &'a Arc<Operator>,
    monitor: &'a dyn Monitor,
    /// Where vCPUs stop.
    pub placed: Vec<Placed>,
    /// What vCPUs are to do when they go on, and which of them have stopped.
    pub resumption: Resumption,
    /// Whether addresses are those of guest memory, and not of a vCPU.
    is_physical: bool,
    /// Why the last thing was refused that gdb asked for: gdb itself is told a number.
    pub refused: Option<String>,
}

impl<'a> Debuggee<'a> {
    /// The machine of `operator`, which is stopped.
    pub fn new(operator: &'a Arc<Operator>, monitor: &'a dyn Monitor) -> Self {
        Self {
            operator,
            monitor,
            placed: Vec::new(),
            resumption: Resumption::default(),
            is_physical: false,
            refused: None,
        }
    }

    /// Refuses something that gdb can do without, and remembers why.
    pub fn refuse<T>(&mut self, error: &dyn std::fmt::Display) -> TargetResult<T, Self> {
        self.refused = Some(error.to_string());
        Err(TargetError::NonFatal)
    }

    fn on<T>(
        &mut self,
        thread: Tid,
        body: impl FnOnce(&Debugged<'_>) -> Result<T, vmm_sys_util::errno::Error>,
    ) -> TargetResult<T, Self> {
        let cpu = cpu_of(thread);
        match self.operator.debug(cpu, body) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => self.refuse(&OperatorError::Look(cpu, error)),
            Err(error) => self.refuse(&error),
        }
    }

    /// Changes the registers of a vCPU. One that sleeps and is sent elsewhere wakes: it would stay where it
    /// is otherwise, until an interrupt.
    fn change(
        &mut self,
        thread: Tid,
        change: impl FnOnce(&VcpuRegisters) -> Result<VcpuRegisters, NotChanged>,
    ) -> TargetResult<(), Self> {
        let cpu = cpu_of(thread);
        let changed = self.operator.debug(cpu, |debugged| {
            let fd = debugged.vcpu.fd();
            let look = |error| OperatorError::Look(cpu, error).to_string();
            let were = VcpuRegisters::read(fd).map_err(look)?;
            let now = change(&were).map_err(|refused| refused.to_string())?;
            let written = now
                .write(&were, fd)
                .and_then(|()| match now.is_elsewhere(&were) {
                    true => debugged.wake(),
                    false => Ok(()),
                });
            written.map_err(|error| chain(&OperatorError::Change(cpu, error)))
        });
        match changed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => self.refuse(&why),
            Err(error) => self.refuse(&error),
        }
    }

    /// Does one of the commands that are about gdb itself, if it is one.
    fn own_command(&mut self, words: &[&str]) -> Option<String> {
        let memory = |is_physical| match is_physical {
            true => "addresses are those of guest memory now; `monitor physical off` undoes it",
            false => "addresses are those of the thread now",
        };
        match words {
            ["physical", "on"] => self.is_physical = true,
            ["physical", "off"] => self.is_physical = false,
            ["why"] => {
                let nothing = || "nothing was refused".to_owned();
                return Some(self.refused.clone().unwrap_or_else(nothing));
            }
            _ => return None,
        }
        Some(memory(self.is_physical).to_owned())
    }
}

impl Target for Debuggee<'_> {
    type Arch = VcpuArch;
    type Error = OperatorError;

    fn base_ops(&mut self) -> BaseOps<'_, VcpuArch, OperatorError> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Debuggee<'_> {
    fn read_registers(&mut self, file: &mut RegisterFile, thread: Tid) -> TargetResult<(), Self> {
        *file = self.on(thread, |debugged| {
            Ok(VcpuRegisters::read(debugged.vcpu.fd())?.file())
        })?;
        Ok(())
    }

    fn write_registers(&mut self, file: &RegisterFile, thread: Tid) -> TargetResult<(), Self> {
        self.change(thread, |were| Ok(were.with(file)))
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
        let (operator, is_physical) = (self.operator, self.is_physical);
        let read = self.on(thread, |debugged| {
            Ok(match is_physical {
                true => read_physical(debugged, start, data.len(), operator),
                false => debugged.read(start, data.len(), |physical, bytes| {
                    operator.hide_patches(physical, bytes);
                }),
            })
        })?;
        data[..read.len()].copy_from_slice(&read);
        match read.is_empty() && !data.is_empty() {
            true => self.refuse(&format!("there is no memory at {start:#x}")),
            false => Ok(read.len()),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], thread: Tid) -> TargetResult<(), Self> {
        let (operator, is_physical) = (self.operator, self.is_physical);
        let written = self.on(thread, |debugged| {
            Ok(match is_physical {
                true => {
                    let written = debugged.memory.write(data, GuestAddress(start));
                    let written = written.unwrap_or_default();
                    operator.keep_patches(start, &data[..written], debugged.memory);
                    written
                }
                false => debugged.write(start, data, |physical, bytes| {
                    operator.keep_patches(physical, bytes, debugged.memory);
                }),
            })
        })?;
        match written == data.len() {
            true => Ok(()),
            false => self.refuse(&format!(
                "there is no memory at {:#x}",
                start.wrapping_add(written as u64)
            )),
        }
    }

    fn list_active_threads(
        &mut self,
        thread_is_active: &mut dyn FnMut(Tid),
    ) -> Result<(), OperatorError> {
        let cpus = self.operator.debuggable();
        cpus.into_iter()
            .for_each(|cpu| thread_is_active(thread_of(cpu)));
        Ok(())
    }

    fn is_thread_alive(&mut self, thread: Tid) -> Result<bool, OperatorError> {
        let state = self.operator.state(cpu_of(thread));
        Ok(state.is_ok_and(|state| !matches!(state, State::Exited(_))))
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

/// Up to `length` bytes at `start` in guest memory, without what is patched.
fn read_physical(
    debugged: &Debugged<'_>,
    start: u64,
    length: usize,
    operator: &Operator,
) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = debugged.memory.read(&mut bytes, GuestAddress(start));
    bytes.truncate(read.unwrap_or(0));
    operator.hide_patches(start, &mut bytes);
    bytes
}

impl SingleRegisterAccess<Tid> for Debuggee<'_> {
    fn read_register(
        &mut self,
        thread: Tid,
        register: RegisterId,
        buffer: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let bytes = self.on(thread, |debugged| {
            Ok(VcpuRegisters::read(debugged.vcpu.fd())?.bytes(&register))
        })?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_register(
        &mut self,
        thread: Tid,
        register: RegisterId,
        value: &[u8],
    ) -> TargetResult<(), Self> {
        self.change(thread, |were| were.with_bytes(&register, value))
    }
}

impl ThreadExtraInfo for Debuggee<'_> {
    fn thread_extra_info(&self, thread: Tid, buffer: &mut [u8]) -> Result<usize, OperatorError> {
        let cpu = cpu_of(thread);
        let dump = self
            .operator
            .debug(cpu, |debugged| VcpuDump::of(debugged.vcpu, debugged.memory));
        let mut text = format!("CPU {cpu}");
        if let Ok(Ok(dump)) = dump {
            text += match dump.activity {
                Activity::Running if dump.interrupts_on() => " runs",
                Activity::Running => " runs, interrupts off",
                Activity::Halted => " is halted",
                Activity::NotStarted => " waits to be started",
            };
        }
        if let Ok(State::Stalled(Stall::Held)) = self.operator.state(cpu) {
            text += ", held";
        }
        let length = text.len().min(buffer.len());
        buffer[..length].copy_from_slice(&text.as_bytes()[..length]);
        Ok(length)
    }
}

impl MonitorCmd for Debuggee<'_> {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), OperatorError> {
        let command = String::from_utf8_lossy(command).into_owned();
        let words: Vec<_> = command.split_whitespace().collect();
        let text = self.own_command(&words).unwrap_or_else(|| {
            let mut ask = |request: &str| answer_of(self.operator, request.as_bytes());
            self.monitor.perform(&words, &mut ask)
        });
        outputln!(out, "{}", text.trim_end());
        Ok(())
    }
}
