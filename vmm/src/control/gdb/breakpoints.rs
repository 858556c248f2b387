//! The breakpoints and watchpoints that gdb sets. `break` takes the hardware's where this host has them and
//! one is free, and otherwise replaces the instruction; `hbreak` and `watch` need the hardware's. gdb sets
//! them when vCPUs are about to go on, and removes them when they have stopped.

use gdbstub::target::TargetResult;
use gdbstub::target::ext::breakpoints::{
    Breakpoints, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};

use super::debuggee::Debuggee;
use crate::control::operator::OperatorError;
use crate::machine::breakpoints::{self, HARDWARE_POINTS, HardwarePoint};

/// Something at which vCPUs stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub how: How,
    /// Whether gdb asked for the hardware's.
    pub is_hard: bool,
}

/// By what they stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Hardware(HardwarePoint),
    /// The instruction at this address is replaced.
    Patch(u64),
}

impl Placed {
    /// Whether it stops vCPUs before the instruction at `address`.
    pub fn is_at(&self, address: u64) -> bool {
        [
            How::Patch(address),
            How::Hardware(HardwarePoint::Code(address)),
        ]
        .contains(&self.how)
    }
}

impl Debuggee<'_> {
    /// Removes all of them.
    ///
    /// # Errors
    /// The machine is over, or KVM refuses.
    pub fn remove_all(&mut self) -> Result<(), OperatorError> {
        for placed in std::mem::take(&mut self.placed) {
            if let How::Patch(address) = placed.how {
                self.operator.unpatch(address)?;
            }
        }
        self.operator.set_debugger_points(&[])
    }

    fn hardware_points(&self) -> Vec<HardwarePoint> {
        let hardware = self.placed.iter().filter_map(|placed| match placed.how {
            How::Hardware(point) => Some(point),
            How::Patch(_) => None,
        });
        hardware.collect()
    }

    /// Has the processor watch for `point` too.
    fn add_hardware(&mut self, point: HardwarePoint, is_hard: bool) -> Result<(), String> {
        let checked = match point {
            HardwarePoint::Code(_) => breakpoints::check(),
            HardwarePoint::Data { .. } => breakpoints::check_watchpoints(),
        };
        checked.map_err(|error| error.to_string())?;
        if !point.is_possible() {
            return Err(
                "the processor watches 1, 2, 4 or 8 bytes, at an address that is a multiple of \
                 that; cast what you watch"
                    .to_owned(),
            );
        }
        let mut points = self.hardware_points();
        if points.len() == HARDWARE_POINTS {
            return Err(format!(
                "all {HARDWARE_POINTS} of the processor's are taken"
            ));
        }
        points.push(point);
        (self.operator.set_debugger_points(&points)).map_err(|error| error.to_string())?;
        self.placed.push(Placed {
            how: How::Hardware(point),
            is_hard,
        });
        Ok(())
    }

    /// Removes what was placed by `how`, if gdb asked for it so.
    fn remove(&mut self, is_it: impl Fn(&Placed) -> bool) -> TargetResult<bool, Self> {
        let Some(place) = self.placed.iter().position(is_it) else {
            return Ok(false);
        };
        let removed = match self.placed.remove(place).how {
            How::Patch(address) => self.operator.unpatch(address).map(|_| ()),
            How::Hardware(_) => self.operator.set_debugger_points(&self.hardware_points()),
        };
        match removed {
            Ok(()) => Ok(true),
            Err(error) => self.refuse(&error),
        }
    }
}

impl Breakpoints for Debuggee<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Debuggee<'_> {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        // gdb may say so again.
        let is_there = |placed: &Placed| !placed.is_hard && placed.is_at(address);
        if self.placed.iter().any(is_there) {
            return Ok(true);
        }
        let Err(no_hardware) = self.add_hardware(HardwarePoint::Code(address), false) else {
            return Ok(true);
        };
        // Any vCPU that runs has the kernel mapped. One that was not started decodes in real mode.
        let cpu = self.decoding_cpu();
        match self.operator.patch(cpu, address) {
            Ok(()) => {
                self.placed.push(Placed {
                    how: How::Patch(address),
                    is_hard: false,
                });
                Ok(true)
            }
            Err(error) => self.refuse(&format!("{error} ({no_hardware})")),
        }
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.remove(|placed| !placed.is_hard && placed.is_at(address))
    }
}

impl HwBreakpoint for Debuggee<'_> {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        match self.add_hardware(HardwarePoint::Code(address), true) {
            Ok(()) => Ok(true),
            Err(why) => self.refuse(&why),
        }
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.remove(|placed| placed.is_hard && placed.is_at(address))
    }
}

impl HwWatchpoint for Debuggee<'_> {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let added = match data(address, length, kind) {
            Some(point) => self.add_hardware(point, true),
            None => Err("x86 watches writes, or reads and writes, but not reads alone".to_owned()),
        };
        match added {
            Ok(()) => Ok(true),
            Err(why) => self.refuse(&why),
        }
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let point = data(address, length, kind).map(How::Hardware);
        self.remove(|placed| Some(placed.how) == point)
    }
}

fn data(address: u64, length: u64, kind: WatchKind) -> Option<HardwarePoint> {
    let reads_too = match kind {
        WatchKind::Write => false,
        WatchKind::ReadWrite => true,
        WatchKind::Read => return None,
    };
    Some(HardwarePoint::Data {
        address,
        length,
        reads_too,
    })
}
