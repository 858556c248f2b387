//! What the witness of the atomics is told before each access. Plain data.

/// What a CPU is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Read the atomic at this address, of this many bytes.
    Load(usize, usize),
    /// Write it.
    Store(usize, usize),
    /// Write it in a sequentially consistent way. On x86 that is an exchange, or a store with a full
    /// fence behind it. The address, and the number of bytes.
    Exchange(usize, usize),
    /// Read and write it as one. A compare-and-exchange that fails is one too: the processor
    /// acquires the cache line for writing before it compares. The address, and the number of bytes.
    ReadModifyWrite(usize, usize),
    /// A full fence.
    Fence,
    /// Change ghost state.
    Change(usize),
    /// Change ghost state, in a way that commutes with other such changes.
    Mark(usize),
    /// Take the [`SpinLock`](super::spin::SpinLock) at this address, with a read-modify-write that
    /// is not told of by itself. Those that follow if it fails are.
    Lock(usize),
    /// Release the lock at this address, with a store that is not told of by itself.
    Release(usize),
}
