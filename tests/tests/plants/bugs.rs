//! The bugs. Each is of a kind that this code or similar code has had, and most show only in one
//! particular order of the CPUs' steps. The cases do not give that order.

use super::workshop::Change;

/// A bug, and what has to find it.
#[derive(Debug)]
pub struct Plant {
    /// The oracle, or the explorer's own name for what breaks.
    pub finds: &'static str,
    /// What the CPUs do.
    pub case: &'static str,
    /// Words for the guest, with the bug or without.
    pub words: &'static str,
    /// The bug.
    pub bug: Bug,
}

/// Where the bug is.
#[derive(Debug)]
pub enum Bug {
    /// A change of the sources.
    Source(Change),
    /// In the guest itself, which has the bug on purpose if it is given these words too.
    Words(&'static str),
}

pub(super) const SINGLE: &str = "guest/src/ipi/single.rs";
const LIST: &str = "guest/src/ipi/list.rs";
pub(super) const GRACED: &str = "guest/src/ipi/queue/grace/graced.rs";
const KMALLOC: &str = "guest/src/ipi/queue/kmalloc.rs";
pub(super) const LLIST: &str = "guest/src/ipi/queue/llist.rs";
pub(super) const LOCKED: &str = "guest/src/ipi/queue/locked.rs";
pub(super) const LOCKLESS: &str = "guest/src/ipi/queue/lockless.rs";
const IRQ: &str = "guest/kit/src/sync/irq.rs";
pub(super) const IPI: &str = "guest/src/ipi/path.rs";
pub(super) const HOTPLUG: &str = "guest/src/ipi/hotplug.rs";
pub(super) const STOP: &str = "guest/src/ipi/stop.rs";
pub(super) const PUPPET: &str = "guest/src/workload/puppet.rs";

/// Two CPUs that call each other, and a third.
pub const BOTH_CALL_MANY: &str = "cpus 3\n0: many 1,2\n1: many 0,2\n";

/// Two CPUs that call a third.
pub const BOTH_CALL_ONE: &str = "cpus 3\n0: single 1\n2: single 1\n";

/// How the handler of calls to one CPU runs one.
const RUN_SINGLE: &str = "
            let call = csd.call();
            if call != Call::NOTHING {
                probe!(machine.platform, \"single.run\", call.info);
                run(call);
            }
            csd.unlock(machine, call);
";

/// The decision to interrupt is made by reading the queue before the call is on it, without the
/// lock: it can have been drained since.
pub const LOST: Plant = Plant {
    finds: "lost",
    case: BOTH_CALL_ONE,
    words: "",
    bug: Bug::Source(Change {
        file: SINGLE,
        sound: "
        let was_empty = irqs_off(&machine.platform, || unsafe {
            queue.push(&machine.platform, csd)
        });
",
        broken: "
        let was_empty = queue.is_empty();
        irqs_off(&machine.platform, || unsafe {
            queue.push(&machine.platform, csd)
        });
",
    }),
};

/// The descriptor is unlocked before the call is read from it, and can carry the next one by then.
/// With the call to itself in between, both have the same function.
pub const DUPLICATE: Plant = Plant {
    finds: "duplicate",
    case: "cpus 2\n0: single 1; single 0; single 1\n",
    words: "",
    bug: Bug::Source(Change {
        file: SINGLE,
        sound: RUN_SINGLE,
        broken: "
            csd.unlock(machine, Call::NOTHING);
            let call = csd.call();
            if call != Call::NOTHING {
                probe!(machine.platform, \"single.run\", call.info);
                run(call);
            }
",
    }),
};

/// A walker runs every call that has references, and does not check whether it is a target.
pub const WRONG_CPU: Plant = Plant {
    finds: "wrong-cpu",
    case: BOTH_CALL_MANY,
    words: "queue=fixed-2011",
    bug: Bug::Source(Change {
        file: LOCKLESS,
        sound: "
        let is_for_me = element.mask(machine).contains(me, Ordering::Acquire)
            && (self.stage",
        broken: "
        let is_for_me = (self.stage",
    }),
};

/// The descriptor is unlocked when the function has been read from it, and the argument has not.
pub const WRONG_FUNCTION: Plant = Plant {
    finds: "wrong-function",
    case: "cpus 2\n0: single 1; single 1\n",
    words: "",
    bug: Bug::Source(Change {
        file: SINGLE,
        sound: RUN_SINGLE,
        broken: "
            let func = csd.call().func;
            csd.unlock(machine, Call::NOTHING);
            let call = Call { func, ..csd.call() };
            if call != Call::NOTHING {
                probe!(machine.platform, \"single.run\", call.info);
                run(call);
            }
",
    }),
};

/// A descriptor is queued before it carries its call. Its own interrupt comes later, but another
/// CPU's may come at once.
pub const STALE_ARGUMENT: Plant = Plant {
    finds: "stale-argument",
    case: BOTH_CALL_MANY,
    words: "queue=llist",
    bug: Bug::Source(Change {
        file: LLIST,
        sound: "
            pair.csd.carry(call);
            pair.wait.store(u32::from(wait), Ordering::Relaxed);
            probe!(machine.platform, \"queue.insert\", call.info);
            if self.push(target, index) {
                to_interrupt.insert(target);
            }
",
        broken: "
            pair.wait.store(u32::from(wait), Ordering::Relaxed);
            probe!(machine.platform, \"queue.insert\", call.info);
            if self.push(target, index) {
                to_interrupt.insert(target);
            }
            pair.csd.carry(call);
",
    }),
};

/// A target drops its reference before it has run the function.
pub const EARLY_RETURN: Plant = Plant {
    finds: "early-return",
    case: "cpus 3\n0: many 1,2 wait\n",
    words: "queue=counters",
    bug: Bug::Source(Change {
        file: GRACED,
        sound: "
                run(call);
                probe!(machine.platform, \"queue.refs\", call.info);
                // AcqRel: the last to leave has seen what all others did, and the owner sees it
                // too.
                if element.refs.fetch_sub(1, Ordering::AcqRel) == 1 {
                    self.elements.list.remove(machine, at, call);
                    element.csd.unlock(machine, call);
                }
",
        broken: "
                if element.refs.fetch_sub(1, Ordering::AcqRel) == 1 {
                    self.elements.list.remove(machine, at, call);
                    element.csd.unlock(machine, call);
                }
                run(call);
",
    }),
};

/// A call is queued although all its targets have left the mask since it was first read.
pub const LEFT_LOCKED: Plant = Plant {
    finds: "left-locked",
    case: "cpus 3\n0: many 1,2\n1: leave-mask 0\n2: leave-mask 0\n",
    words: "queue=filo",
    bug: Bug::Words("mask-check=off"),
};

/// The lock under which an element is taken out of the list is not the list's.
pub const BROKEN_QUEUE: Plant = Plant {
    finds: "broken-queue",
    case: BOTH_CALL_MANY,
    words: "queue=filo",
    bug: Bug::Source(Change {
        file: LIST,
        sound: "
        self.lock.with(&machine.platform, || {
            probe!(machine.platform, \"queue.lock.acquired\", call.info);
            let old = ",
        broken: "
        SpinLock::new().with(&machine.platform, || {
            probe!(machine.platform, \"queue.lock.acquired\", call.info);
            let old = ",
    }),
};

/// The function that disables interrupts always enables them afterwards, in a handler too.
pub const INTERRUPTS_ON: Plant = Plant {
    finds: "interrupts-on",
    case: BOTH_CALL_ONE,
    words: "queue=kmalloc",
    bug: Bug::Source(Change {
        file: IRQ,
        sound: "
    if were_on {
",
        broken: "
    let _ = were_on;
    {
",
    }),
};

/// References are decremented by a load and a store.
pub const BAD_REFS: Plant = Plant {
    finds: "bad-refs",
    case: "cpus 3\n0: many 1,2\n",
    words: "queue=counters",
    bug: Bug::Source(Change {
        file: GRACED,
        sound: "
                if element.refs.fetch_sub(1, Ordering::AcqRel) == 1 {
",
        broken: "
                let refs = element.refs.load(Ordering::Acquire);
                element.refs.store(refs - 1, Ordering::Release);
                if refs == 1 {
",
    }),
};

/// A caller that finds another call queued, and so sends no interrupt, leaves its own interrupts
/// off: the next time it has to wait, that breaks the contract.
pub const CONTRACT: Plant = Plant {
    finds: "contract",
    case: "cpus 3\n0: single 1; single 1\n2: single 1\n",
    words: "",
    bug: Bug::Source(Change {
        file: SINGLE,
        sound: "
        let was_empty = irqs_off(&machine.platform, || unsafe {
            queue.push(&machine.platform, csd)
        });
        probe!(machine.platform, \"single.queued\", call.info);
        if was_empty {
",
        broken: "
        let were_on = machine.platform.irqs_enabled();
        machine.platform.irqs_disable();
        let was_empty = unsafe { queue.push(&machine.platform, csd) };
        probe!(machine.platform, \"single.queued\", call.info);
        if was_empty {
            if were_on {
                machine.platform.irqs_enable();
            }
",
    }),
};

/// The targets that are returned are read from the mask again, when some may have left it.
pub const ACCOUNTING: Plant = Plant {
    finds: "accounting",
    case: "cpus 3\n0: many 1,2 wait\n1: leave-mask 0\n",
    words: "queue=filo",
    bug: Bug::Source(Change {
        file: LOCKED,
        sound: "
            element.csd.wait(machine);
        }
        targets
",
        broken: "
            element.csd.wait(machine);
        }
        machine.others_online(mask)
",
    }),
};

/// A CPU's mask is freed when it has gone offline, without a stop, while others still read it.
pub const USE_AFTER_FREE: Plant = Plant {
    finds: "use-after-free",
    case: "cpus 3\n0: offline 1\n1: many 0,2\n",
    words: "queue=filo",
    bug: Bug::Words("hotplug=no-stop"),
};

/// Each CPU adds elements to those that wait to be freed under a lock of its own, so that one can
/// overwrite another.
pub const LEAK: Plant = Plant {
    finds: "leak",
    case: BOTH_CALL_MANY,
    words: "queue=kmalloc",
    bug: Bug::Source(Change {
        file: KMALLOC,
        sound: "
            self.lock.with(platform, || {
                let period = ",
        broken: "
            SpinLock::new().with(platform, || {
                let period = ",
    }),
};

/// An element is reused without waiting for the walks that have begun.
pub const REUSED_TOO_SOON: Plant = Plant {
    finds: "reused-too-soon",
    case: "cpus 3\n0: many 1,2; many 1,2\n",
    words: "queue=counters",
    bug: Bug::Source(Change {
        file: GRACED,
        sound: "
        self.grace.wait(machine);
",
        broken: "
",
    }),
};

/// The list's lock, which handlers take too, is taken with interrupts on.
pub const HANG: Plant = Plant {
    finds: "hang",
    case: BOTH_CALL_MANY,
    words: "queue=counting-rcu",
    bug: Bug::Source(Change {
        file: GRACED,
        sound: "
        irqs_off(&machine.platform, || {
            self.elements.list.insert(machine, me, End::Tail, call);
        });
",
        broken: "
        self.elements.list.insert(machine, me, End::Tail, call);
",
    }),
};

/// A CPU that finds a call queued spins until the target has taken it, and holds the lock that the
/// target needs for that.
pub const LIVELOCK: Plant = Plant {
    finds: "livelock",
    case: "cpus 2\n0: single 1; async 1\n",
    words: "",
    bug: Bug::Source(Change {
        file: SINGLE,
        sound: "
        self.lock.with(platform, || {
            let tail = ",
        broken: "
        self.lock.with(platform, || {
            while !self.is_empty() {}
            let tail = ",
    }),
};

/// A call is counted twice when it is made, so that the count contradicts the ledger.
pub const NOT_BELIEVED: Plant = Plant {
    finds: "not-believed",
    case: "cpus 2\n0: single 1\n",
    words: "",
    bug: Bug::Source(Change {
        file: "guest/src/ledger.rs",
        sound: "
        count(&tally.calls_made, 1);
",
        broken: "
        count(&tally.calls_made, 2);
",
    }),
};

/// A handler asserts that it has something to do, although an earlier interrupt may have served it.
pub const DIED: Plant = Plant {
    finds: "died",
    case: BOTH_CALL_MANY,
    words: "queue=filo",
    bug: Bug::Source(Change {
        file: LOCKED,
        sound: "
        probe!(machine.platform, \"queue.walked\");
",
        broken: "
        assert_ne!(served, 0, \"an interrupt without a call\");
",
    }),
};

/// A CPU that finds in `llist` that another was faster tries again with the old value, and so for
/// ever. It returns to the same state each time.
pub const ROUND: Change = Change {
    file: LLIST,
    sound: "Err(now) => first = now,",
    broken: "Err(_) => {}",
};
