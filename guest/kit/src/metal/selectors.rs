//! Segment selectors: which entry of a descriptor table is which. The table that the boot code
//! loads and the one that each CPU loads afterwards agree on the first two.

/// Selector of the 64-bit code segment, in both tables.
pub const CODE64: u16 = 0x08;

/// Selector of the data segment, in both tables.
pub const DATA: u16 = 0x10;

/// Selector of the 32-bit code segment in the table of the boot code. Only the trampoline uses it.
pub const CODE32: u16 = 0x18;

/// Selector of the task state segment in a CPU's own table.
pub const TSS: u16 = 0x18;
