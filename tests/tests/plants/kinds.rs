//! More bugs, by the kind of mistake. Each has been made in this code or in similar code, and
//! several look the same to an oracle. Some can be found only by an interrupt at the right moment
//! on the CPU that makes the mistake, and not by the order of CPUs alone.

use super::bugs::{
    BOTH_CALL_MANY, BOTH_CALL_ONE, GRACED, HOTPLUG, IPI, LLIST, LOCKED, LOCKLESS, PUPPET, SINGLE,
    STOP,
};
use super::workshop::Change;

/// A bug, and what can break by it.
#[derive(Debug)]
pub struct Kind {
    /// Its name, also in names of files.
    pub name: &'static str,
    /// Oracles, or the explorer's own names for what breaks. One of them has to find it.
    pub finds: &'static [&'static str],
    /// What the CPUs do.
    pub case: &'static str,
    /// Words for the guest, with the bug or without.
    pub words: &'static str,
    /// The bug.
    pub change: Change,
}

/// No bug: a CPU that waits for a descriptor stores something in each turn, after what it reads.
pub const HARMLESS_STORE: Change = Change {
    file: "guest/src/ipi/csd.rs",
    sound: "
        let is_free = || self.flags.load(Ordering::Acquire) & LOCK == 0;
",
    broken: "
        let seen = AtomicU32::new(0);
        let is_free = || {
            let is_free = self.flags.load(Ordering::Acquire) & LOCK == 0;
            seen.store(1, Ordering::Relaxed);
            is_free
        };
",
};

/// Every one.
pub const ALL: [Kind; 14] = [
    Kind {
        name: "panic-at-the-end",
        finds: &["died"],
        case: "cpus 2\n0: single 1\n",
        words: "",
        change: Change {
            file: PUPPET,
            sound: "
        self.ipi.audit();
",
            broken: "
        assert_eq!(machine.this_cpu(), cpus_that_are_none(), \"nobody is to look\");
        fn cpus_that_are_none() -> CpuId {
            CpuId::MAX
        }
        self.ipi.audit();
",
        },
    },
    Kind {
        name: "element-lock-with-irqs-on",
        finds: &["hang", "lost"],
        case: "cpus 3\n0: many 1,2\n2: many 0,1\n",
        words: "queue=filo",
        change: Change {
            file: LOCKED,
            sound: "
        let targets = irqs_off(&machine.platform, || {
            element.lock.with(&machine.platform, || {
                let targets = machine.others_online(mask);
                if !Elements::is_void(machine, &targets) {
                    element.csd.carry(call);
                    element.mask(machine).store(&targets, Ordering::Relaxed);
                    probe!(machine.platform, \"many.masked\", call.info);
                    element.refs.store(targets.len() as u32, Ordering::Relaxed);
                    probe!(machine.platform, \"many.filled\", call.info);
                    self.elements.list.insert(machine, me, self.end, call);
                }
                targets
            })
        });
",
            broken: "
        let targets = element.lock.with(&machine.platform, || {
            let targets = machine.others_online(mask);
            if !Elements::is_void(machine, &targets) {
                element.csd.carry(call);
                element.mask(machine).store(&targets, Ordering::Relaxed);
                element.refs.store(targets.len() as u32, Ordering::Relaxed);
                irqs_off(&machine.platform, || {
                    self.elements.list.insert(machine, me, self.end, call);
                });
            }
            targets
        });
",
        },
    },
    Kind {
        name: "no-wait-without-an-interrupt",
        finds: &["early-return"],
        case: "cpus 3\n0: many 1,2 wait\n1: many 0,2\n2: many 0,1\n",
        words: "queue=llist",
        change: Change {
            file: LLIST,
            sound: "
        if wait {
            probe!",
            broken: "
        if wait && !to_interrupt.is_empty() {
            probe!",
        },
    },
    Kind {
        name: "descriptor-of-two-cpus",
        finds: &[
            "hang",
            "lost",
            "duplicate",
            "wrong-cpu",
            "stale-argument",
            "died",
            "livelock",
        ],
        case: "cpus 3\n0: single 2\n1: single 2\n",
        words: "",
        change: Change {
            file: SINGLE,
            sound: "None => &self.per_cpu[machine.this_cpu()].csd,",
            broken: "None => &self.per_cpu[machine.this_cpu() & !1].csd,",
        },
    },
    Kind {
        name: "no-flush-by-a-dying-cpu",
        finds: &["lost", "hang", "left-locked", "broken-queue"],
        case: "cpus 3\n0: offline 1\n2: single 1\n",
        words: "hotplug=no-stop",
        change: Change {
            file: HOTPLUG,
            sound: "
        self.serve_pending();
        let veto",
            broken: "
        let veto",
        },
    },
    Kind {
        name: "push-with-irqs-on",
        finds: &["hang", "lost"],
        case: BOTH_CALL_MANY,
        words: "queue=fixed-2011",
        change: Change {
            file: LOCKLESS,
            sound: "
            irqs_off(&machine.platform, || {
                self.elements
                    .list
                    .insert_then(machine, me, End::Head, call, then);
            });
",
            broken: "
            self.elements
                .list
                .insert_then(machine, me, End::Head, call, then);
",
        },
    },
    Kind {
        name: "next-after-the-unlock",
        finds: &[
            "hang",
            "lost",
            "duplicate",
            "broken-queue",
            "left-locked",
            "stale-argument",
            "livelock",
        ],
        case: "cpus 3\n0: many 1,2; many 1,2\n1: many 0,2\n",
        words: "queue=llist",
        change: Change {
            file: LLIST,
            sound: "
            at = pair.next.load(Ordering::Relaxed);
            let call = pair.csd.call();
            let run = || {
                probe!(machine.platform, \"queue.run\", call.info);
                run(call);
            };
            if pair.wait.load(Ordering::Relaxed) != 0 {
                run();
                pair.csd.unlock(machine, call);
            } else {
                pair.csd.unlock(machine, call);
                run();
            }
",
            broken: "
            let call = pair.csd.call();
            let run = || {
                probe!(machine.platform, \"queue.run\", call.info);
                run(call);
            };
            if pair.wait.load(Ordering::Relaxed) != 0 {
                run();
                pair.csd.unlock(machine, call);
            } else {
                pair.csd.unlock(machine, call);
                run();
            }
            at = pair.next.load(Ordering::Relaxed);
",
        },
    },
    Kind {
        name: "references-before-the-mask",
        finds: &[
            "bad-refs",
            "hang",
            "broken-queue",
            "lost",
            "left-locked",
            "stale-argument",
        ],
        case: "cpus 3\n0: many 1,2; many 1,2\n1: many 0,2\n",
        words: "queue=fixed-2011",
        change: Change {
            file: LOCKLESS,
            sound: "
        let is_for_me = element.mask(machine).contains(me, Ordering::Acquire)
            && (self.stage == Stage::AsOf2009 || element.refs.load(Ordering::Acquire) != 0);
",
            broken: "
        let is_for_me = (self.stage == Stage::AsOf2009 || element.refs.load(Ordering::Acquire) != 0)
            && element.mask(machine).contains(me, Ordering::Acquire);
",
        },
    },
    Kind {
        name: "unlock-before-removal",
        finds: &["broken-queue", "hang", "lost", "bad-refs", "left-locked"],
        case: "cpus 3\n0: many 1,2; many 1,2\n",
        words: "queue=fixed-2011",
        change: Change {
            file: LOCKLESS,
            sound: "
            self.elements.list.remove(machine, at, call);
            element.csd.unlock(machine, call);
",
            broken: "
            element.csd.unlock(machine, call);
            self.elements.list.remove(machine, at, call);
",
        },
    },
    Kind {
        name: "grace-before-the-lock",
        finds: &["reused-too-soon"],
        case: "cpus 3\n0: many 1,2; many 1,2\n",
        words: "queue=counting-rcu",
        change: Change {
            file: GRACED,
            sound: "
        element.csd.lock(machine, call);
        // It left the list before it was unlocked, so a walk that begins from here on cannot come
        // across it; wait out those that have begun.
        probe!(machine.platform, \"grace.wait\", call.info);
        self.grace.wait(machine);
        probe!(machine.platform, \"grace.over\", call.info);
",
            broken: "
        self.grace.wait(machine);
        element.csd.lock(machine, call);
",
        },
    },
    Kind {
        name: "only-the-victim-flushes",
        finds: &["use-after-free", "hang", "lost", "leak", "bad-refs"],
        case: "cpus 3\n0: offline 1\n1: many 0,2\n",
        words: "queue=filo",
        change: Change {
            file: STOP,
            sound: "
                    serve_pending();
",
            broken: "
                    if is_victim {
                        serve_pending();
                    }
",
        },
    },
    // The CPU that comes can already make calls.
    Kind {
        name: "prepared-once-it-is-online",
        finds: &["use-after-free"],
        case: "cpus 3\n0: online 2\n2: many 0,1\n",
        words: "queue=filo maxcpus=2",
        change: Change {
            file: HOTPLUG,
            sound: "
            self.notify(HotplugEvent::UpPrepare, cpu)?;
            probe!(machine.platform, \"hotplug.prepared\");
            if machine",
            broken: "
            if machine",
        },
    },
    Kind {
        name: "interrupts-enabled-in-a-handler",
        finds: &["interrupts-on"],
        case: BOTH_CALL_ONE,
        words: "",
        change: Change {
            file: IPI,
            sound: "
        self.machine.quiescent();
        let served",
            broken: "
        self.machine.quiescent();
        self.machine.platform.irqs_enable();
        let served",
        },
    },
    // Two CPUs that go round in loops that are not announced as waiting: no cycle of states is one
    // of both CPUs.
    Kind {
        name: "waits-for-ever-unannounced",
        finds: &["livelock", "hang"],
        case: "cpus 2\n0: single 1 wait\n1: single 0 wait\n",
        words: "",
        change: Change {
            file: "guest/src/ipi/csd.rs",
            sound: "
            machine.spin_until(is_free);
",
            broken: "
            while is_free() || !is_free() {
                machine.platform.relax();
            }
",
        },
    },
];
