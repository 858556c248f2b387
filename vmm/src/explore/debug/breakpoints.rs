//! The breakpoints and watchpoints that gdb sets on a recording. They are the recording's own: what has
//! been executed is compared with them, so that there can be any number, and nothing is replaced in the
//! guest. What is watched for is a change; who only reads cannot be told.

use gdbstub::target::TargetResult;
use gdbstub::target::ext::breakpoints::{
    Breakpoints, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};

use super::search::{WIDEST, Watch};
use super::target::Target;
use crate::page_size::PAGE_SIZE;

impl Breakpoints for Target<'_> {
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

impl Target<'_> {
    fn add(&mut self, address: u64) {
        self.breakpoints.push(address);
    }

    fn remove(&mut self, address: u64) -> bool {
        let place = self.breakpoints.iter().position(|it| *it == address);
        place.map(|place| self.breakpoints.remove(place)).is_some()
    }
}

impl SwBreakpoint for Target<'_> {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.add(address);
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.remove(address))
    }
}

impl HwBreakpoint for Target<'_> {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.add(address);
        Ok(true)
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.remove(address))
    }
}

impl HwWatchpoint for Target<'_> {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        if kind != WatchKind::Write {
            return self.refuse(
                "a recording watches for changes (`watch`), and does not know who reads \
                 (`rwatch`, `awatch`)",
            );
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > WIDEST || (address % PAGE_SIZE as u64) as usize + length > PAGE_SIZE {
            return self.refuse("no more than 8 bytes are watched, within a page; cast it");
        }
        let Some(physical) = self.translate(address)? else {
            return self.refuse(&format!("there is no memory at {address:#x}"));
        };
        self.watches.push(Watch {
            address,
            physical,
            length,
        });
        Ok(true)
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        _: WatchKind,
    ) -> TargetResult<bool, Self> {
        let is_it = |it: &Watch| (it.address, it.length as u64) == (address, length);
        let place = self.watches.iter().position(is_it);
        Ok(place.map(|place| self.watches.remove(place)).is_some())
    }
}
