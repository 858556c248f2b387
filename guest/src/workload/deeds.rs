//! What a CPU can be told to do with `workload=puppet`: the number, the names, the arguments and
//! the meaning of each deed. [`puppet`](super::puppet) carries them out. What posts commands finds
//! all of this in the image's manifest.

use kit::deeds;
use kit::manifest::{ANSWERS, ENDS, ENTERS_CALL, IN_CASE, IN_HANDLER, MAY_WAIT, TAKES_PROGRAM};

/// A call. The deeds in its braces are done by its function. A call that may wait can be told to a
/// function or a handler as well, where it is the breach of the contract that it is.
const ASYNC: u32 = IN_CASE | IN_HANDLER | TAKES_PROGRAM;

/// A call that can be waited for.
const CALL: u32 = ASYNC | MAY_WAIT;

deeds! {
    /// What a CPU can be told to do. Calls run the workload's plainest function. A result of 0 is
    /// success, if nothing else is said.
    pub enum Verb {
        CallSingle = 1 "call-single" or "single" (Cpu) [CALL | ENTERS_CALL]
            "Calls one CPU (smp_call_function_single).",

        CallAsync = 2 "call-async" or "async" (Cpu) [ASYNC]
            "Calls one CPU with a descriptor of the caller's own (smp_call_function_single_async).",

        /// The mask that is handed to the path is this CPU's own. Other CPUs can remove themselves
        /// from it by [`Verb::LeaveMask`] while the call is under way.
        CallMany = 3 "call-many" or "many" (Cpus) [CALL | ENTERS_CALL]
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

        /// By INIT and start-up IPI, as at boot, whether it has left or never run. Interrupts that were
        /// pending at it are lost.
        Online = 10 "online" (Cpu) [IN_CASE]
            "Brings another CPU online.",

        Spin = 11 "spin" () [IN_CASE]
            "Stays awake from now on while it waits for commands.",

        Idle = 12 "idle" () [IN_CASE]
            "Sleeps from now on while it waits for commands, as at first.",

        LeaveMask = 13 "leave-mask" (Cpu) [IN_CASE | IN_HANDLER]
            "Takes itself out of the mask with which another CPU calls many.",

        /// The answer names elements by owner, where they have one. Result: how many there are,
        /// which may be more than the answer has room for.
        Queue = 14 "queue-order" or "queue" () [ANSWERS]
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

        /// The CPU sends itself the timer's interrupt. In a search that can come at any moment from
        /// then on; elsewhere it comes at once, if interrupts are on. The next one of several is
        /// sent when the last has been handled. A timer that is set anew forgets what it was set
        /// for.
        Timer = 21 "timer" (Number) [IN_CASE | TAKES_PROGRAM]
            "Sets its timer, which interrupts it so many times from now on.",

        /// Bit N of the word is asked for when it is CPU N's turn.
        CallCond = 22 "call-cond" or "cond" (Cpus, Number) [CALL]
            "Calls those of these CPUs, itself too, whose bit is set in one of the words 0-7 \
             (on_each_cpu_cond).",

        Requeue = 23 "requeue" (Cpu) [IN_CASE | IN_HANDLER]
            "Within the function of an async call, calls one CPU over the descriptor of that call.",
    }
}
