//! What a CPU can be told to do with `workload=puppet`, as the manifest has it.
//! [`puppet`](crate::puppet) carries it out.

use kit::manifest::{ENDS, IN_CASE, Record};
use kit::{declare, declare_values, deeds};

use crate::program::Variable;

declare!(
    Record::word(
        "variable",
        "A word of memory that CPUs share; deeds name it."
    )
    .without_effect_in_search()
);
declare_values!("variable", Variable);

deeds! {
    /// What a CPU can be told.
    pub enum Verb {
        Store = 1 "store" (Word, Number) of "variable" [IN_CASE] "Writes the number.",
        Load = 2 "load" (Word) of "variable" [IN_CASE]
            "Reads the variable into the CPU's next register: r0, then r1 …",
        Exchange = 3 "xchg" (Word, Number) of "variable" [IN_CASE]
            "Writes the number, and reads what was there into the next register, in one.",
        Add = 4 "add" (Word, Number) of "variable" [IN_CASE]
            "Adds the number, and reads what was there into the next register, in one.",
        Fence = 5 "fence" () [IN_CASE] "A full fence.",
        Send = 6 "send" (Cpu, Word) of "variable" [IN_CASE]
            "Interrupts a CPU, whose handler reads the variable into its next register: h0, \
             then h1 …",
        IrqsOff = 7 "irqs-off" () [IN_CASE] "Disables interrupts.",
        IrqsOn = 8 "irqs-on" () [IN_CASE] "Enables interrupts.",
        Finish = 9 "finish" (Cpus) [ENDS] "Ends the test on this CPU, as on all of these.",
    }
}
