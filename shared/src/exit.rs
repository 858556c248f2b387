//! How a guest says that it is done: the value written to [`ports::EXIT`](crate::ports::EXIT).

/// The guest's own word on how it ended.
///
/// The values leave 0 and 1 free, because QEMU's `isa-debug-exit` turns a code `c` into the status
/// `2c + 1` and 1 is also QEMU's status for "could not start".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ExitCode {
    /// The workload ran to its end and every oracle held. (33 under QEMU.)
    Pass = 0x10,
    /// The workload ran to its end and an oracle did not hold. (35 under QEMU.)
    Fail = 0x11,
    /// The guest panicked or took an exception it cannot handle; the console says more. (37)
    Panic = 0x12,
    /// The command line asks for something this guest does not have. (39)
    BadOptions = 0x13,
    /// The machine lacks something the guest needs, such as a CPU that never came up. (41)
    BadMachine = 0x14,
}

impl TryFrom<u32> for ExitCode {
    /// The value, which is no exit code.
    type Error = u32;

    fn try_from(value: u32) -> Result<Self, u32> {
        match value {
            0x10 => Ok(Self::Pass),
            0x11 => Ok(Self::Fail),
            0x12 => Ok(Self::Panic),
            0x13 => Ok(Self::BadOptions),
            0x14 => Ok(Self::BadMachine),
            unknown => Err(unknown),
        }
    }
}
