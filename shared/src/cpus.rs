//! How many CPUs a machine can have, and how large a set of them is. Every structure that holds
//! something per CPU, or a set of CPUs, takes its size from here.

/// Largest number of CPUs that a lab can describe, and that a CPU mask can hold.
pub const MAX_CPUS: u32 = 1024;

/// Words of 64 bits in a mask with a bit for each of [`MAX_CPUS`] CPUs.
pub const MASK_WORDS: usize = MAX_CPUS as usize / 64;
