//! What a CPU can be told to do with `workload=puppet`, as the manifest has it: by what names, with what, and when.
//! [`puppet`](super::puppet) does it; what each does exactly is said at [`Verb`].

use kit::declare;
use kit::manifest::Record;
use shared::mailbox::Verb;
use shared::manifest::Argument::{Cpu, Cpus};
use shared::manifest::{ANSWERS, ENDS, IN_CASE, IN_HANDLER, MAY_WAIT};

/// A call, which can be waited for.
const CALL: u32 = IN_CASE | MAY_WAIT;

declare! {
    Record::deed(Verb::CallSingle as u32, "call-single", &[Cpu], "Calls one CPU (smp_call_function_single).")
        .or("single").with(CALL),
    Record::deed(
        Verb::CallAsync as u32,
        "call-async",
        &[Cpu],
        "Calls one CPU with a descriptor of the caller's own (smp_call_function_single_async).",
    ).or("async").with(IN_CASE | IN_HANDLER),
    Record::deed(Verb::CallMany as u32, "call-many", &[Cpus], "Calls these CPUs (smp_call_function_many).")
        .or("many").with(CALL),
    Record::deed(Verb::CallAll as u32, "call-all", &[], "Calls all others (smp_call_function).")
        .or("all").with(CALL),
    Record::deed(Verb::OnEach as u32, "on-each", &[], "Calls all, itself too (on_each_cpu).")
        .or("each").with(CALL),
    Record::deed(Verb::CallAny as u32, "call-any", &[Cpus], "Calls one of these CPUs (smp_call_function_any).")
        .or("any").with(CALL),
    Record::deed(
        Verb::IrqsOff as u32,
        "irqs-off",
        &[],
        "Disables interrupts. Until they are enabled the CPU makes no call that can have to wait.",
    ).with(IN_CASE),
    Record::deed(Verb::IrqsOn as u32, "irqs-on", &[], "Enables interrupts, and takes all that are pending.")
        .with(IN_CASE),
    Record::deed(Verb::Offline as u32, "offline", &[Cpu], "Takes another CPU offline.").with(IN_CASE),
    Record::deed(Verb::Online as u32, "online", &[Cpu], "Brings another CPU online."),
    Record::deed(Verb::Spin as u32, "spin", &[], "Stays awake from now on while it waits for commands.")
        .with(IN_HANDLER),
    Record::deed(Verb::Idle as u32, "idle", &[], "Sleeps from now on while it waits for commands, as at first.")
        .with(IN_HANDLER),
    Record::deed(
        Verb::LeaveMask as u32,
        "leave-mask",
        &[Cpu],
        "Takes itself out of the mask with which another CPU calls many.",
    ).with(IN_CASE | IN_HANDLER),
    Record::deed(
        Verb::Queue as u32,
        "queue",
        &[],
        "Reads the global queue: its elements from the head on, by owner where they have one.",
    ).with(ANSWERS | IN_HANDLER),
    Record::deed(Verb::Finish as u32, "finish", &[Cpus], "Ends the workload on this CPU, as on all of these.")
        .with(ENDS),
}
