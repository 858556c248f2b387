//! What a CPU can be told to do with `workload=puppet`: the number, the names, the arguments and
//! the meaning of each deed. [`puppet`](super::puppet) carries them out. What posts commands finds
//! all of this in the image's manifest.

use kit::deeds;
use kit::manifest::{ANSWERS, ENDS, IN_CASE, IN_HANDLER, MAY_WAIT};

/// A call, which can be waited for.
const CALL: u32 = IN_CASE | MAY_WAIT;

deeds! {
    /// What a CPU can be told to do. Calls run the workload's plainest function. A result of 0 is
    /// success, if nothing else is said.
    pub enum Verb {
        CallSingle = 1 "call-single" or "single" (Cpu) [CALL]
            "Calls one CPU (smp_call_function_single).",

        CallAsync = 2 "call-async" or "async" (Cpu) [IN_CASE | IN_HANDLER]
            "Calls one CPU with a descriptor of the caller's own (smp_call_function_single_async).",

        /// The mask that is handed to the path is this CPU's own. Other CPUs can remove themselves
        /// from it by [`Verb::LeaveMask`] while the call is under way.
        CallMany = 3 "call-many" or "many" (Cpus) [CALL]
            "Calls these CPUs (smp_call_function_many).",

        CallAll = 4 "call-all" or "all" () [CALL]
            "Calls all others (smp_call_function).",

        OnEach = 5 "on-each" or "each" () [CALL]
            "Calls all, itself too (on_each_cpu).",

        /// Result: which CPU.
        CallAny = 6 "call-any" or "any" (Cpus) [CALL]
            "Calls one of these CPUs (smp_call_function_any).",

        /// The CPU goes on to look for commands, but does not sleep. It takes part in no stop, so
        /// no stop ends meanwhile. A call that may have to wait for another CPU is reported as a
        /// breach of the contract and refused
        /// ([`Refusal::Invalid`](shared::mailbox::Refusal::Invalid)); it takes no CPU offline or
        /// online.
        IrqsOff = 7 "irqs-off" () [IN_CASE]
            "Disables interrupts. Until they are enabled the CPU makes no call that can have \
             to wait.",

        IrqsOn = 8 "irqs-on" () [IN_CASE]
            "Enables interrupts, and takes all that are pending.",

        Offline = 9 "offline" (Cpu) [IN_CASE]
            "Takes another CPU offline.",

        Online = 10 "online" (Cpu) [0]
            "Brings another CPU online.",

        Spin = 11 "spin" () [IN_HANDLER]
            "Stays awake from now on while it waits for commands.",

        Idle = 12 "idle" () [IN_HANDLER]
            "Sleeps from now on while it waits for commands, as at first.",

        LeaveMask = 13 "leave-mask" (Cpu) [IN_CASE | IN_HANDLER]
            "Takes itself out of the mask with which another CPU calls many.",

        /// The answer names elements by owner, where they have one. Result: how many there are,
        /// which may be more than the answer has room for.
        Queue = 14 "queue-order" or "queue" () [ANSWERS | IN_HANDLER]
            "Reads the global queue: its elements from the head on, by owner where they have one.",

        /// Enables interrupts; the CPU looks at no later command. When all CPUs of the set have
        /// arrived here, and have taken every interrupt that was sent to them, the first of them
        /// that is online looks for what was left behind, and ends the run. Other CPUs are not
        /// waited for, and neither are IPIs that the monitor still holds.
        Finish = 15 "finish" (Cpus) [ENDS]
            "Ends the workload on this CPU, as on all of these.",

        /// With `irqs-off` before it this is Linux's `spin_lock_irqsave`. A lock that the CPU has
        /// itself is waited for like any other, and so for ever.
        Lock = 16 "lock" (Number) [IN_CASE | IN_HANDLER]
            "Takes a spin lock (0-7), and waits for it with interrupts as they are.",

        /// To release a lock that one does not have is reported as a breach of the contract, as
        /// lockdep's "bad unlock balance", and refused.
        Unlock = 17 "unlock" (Number) [IN_CASE | IN_HANDLER]
            "Releases a spin lock that the same context has taken.",

        SetWord = 18 "set-word" or "set" (Number, Number) [IN_CASE | IN_HANDLER]
            "Writes a value to one of the words 0-7 (smp_store_release).",

        SpinUntil = 19 "spin-until" or "until" (Number, Number) [IN_CASE | IN_HANDLER]
            "Spins until one of the words 0-7 has a value (smp_cond_load_acquire), with interrupts \
             as they are.",

        /// An interrupt that comes before is not seen. With interrupts off before, none can come
        /// too early.
        Halt = 20 "halt" () [IN_CASE]
            "Enables interrupts and sleeps until it has taken one (sti; hlt).",
    }
}
