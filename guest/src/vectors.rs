//! The vectors of the generic-ipi path (Linux 2.6.30, `arch/x86/include/asm/irq_vectors.h`), and
//! two more.

kit::vectors! {
    /// The CPU's timer: do what it was set for.
    pub TIMER = 0xfa, "timer", Timer;
    /// Look at your own queue of calls to one CPU.
    pub SINGLE = 0xfb, "single", Call;
    /// Walk the queue of calls to many.
    pub MANY = 0xfc, "many", Call;
    /// Is counted, and nothing else.
    pub MEASURED = 0xfe, "measured", Measured;
}
