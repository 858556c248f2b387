//! `workload=puppet`: every CPU does what its mailbox tells it, one command at a time, and nothing
//! else ([`kit::mailbox`]). The commands are those of [`deeds`](super::deeds); those that need no
//! task are carried out by [`obey`](super::obey). What writes them, a script or a search, decides
//! what is tried: this module may neither choose, nor reorder, nor repeat commands.
//!
//! **The end.** A CPU takes what is pending at it by sending itself the vector of the lowest
//! priority: when that has been taken, so have all that were pending before. No call vector is sent
//! for this, which could hide the loss of a call. The end waits for no call: one that has not run
//! by then is lost.

use core::sync::atomic::Ordering;

use kit::lab::Lab;
use kit::mailbox::{Command, Deeds, Mailboxes};
use kit::platform::{CpuId, Platform, Vector};
use kit::specimen::{Next, Part};
use kit::sync::mask::CpuMask;
use shared::mailbox::{ANSWERS, Refusal};

use super::deeds::Verb;
use super::functions::LedgerFunctions;
use super::obey::{self, Context};
use crate::ipi::Ipi;
use crate::ipi::hotplug::HotplugError;
use crate::vectors::TIMER;

/// The puppets of one machine.
#[derive(Debug)]
pub struct Puppet {
    mailboxes: Mailboxes,
}

impl Puppet {
    /// Puppets for the CPUs that `lab` describes. From now on the lab says that they take commands.
    pub fn new(lab: Lab) -> Self {
        Self {
            mailboxes: Mailboxes::new(lab),
        }
    }

    /// This CPU's part of the run. If the CPU had gone offline, it continues where it was.
    pub fn run<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>) -> Part {
        self.mailboxes.run(&PuppetDeeds { puppet: self, ipi })
    }

    /// What the puppets do at an interrupt, on the CPU that has taken it.
    pub fn handle<P: Platform>(&self, ipi: &Ipi<P, LedgerFunctions>, vector: Vector) {
        let machine = &ipi.machine;
        self.mailboxes.handle(&machine.platform, vector);
        if vector != TIMER {
            return;
        }
        let me = machine.this_cpu();
        let Some((program, comes_again)) = ipi.functions.objects.timer_of(me).take() else {
            return;
        };
        obey::program(ipi, program, None);
        if comes_again {
            machine.platform.send_ipi(me, TIMER);
        }
    }
}

/// How puppets carry out commands, with the path of their machine.
struct PuppetDeeds<'a, P: Platform> {
    puppet: &'a Puppet,
    ipi: &'a Ipi<P, LedgerFunctions>,
}

impl<P: Platform> Deeds<P> for PuppetDeeds<'_, P> {
    fn platform(&self) -> &P {
        &self.ipi.machine.platform
    }

    fn lab(&self) -> &Lab {
        &self.ipi.machine.lab
    }

    fn judge(&self) {
        let machine = &self.ipi.machine;
        self.ipi.functions.forgive_unreturned(machine);
        self.ipi.audit();
        self.ipi.functions.audit(machine);
    }

    fn between(&self) -> Next {
        self.ipi.cond_resched()
    }

    fn has_something_between(&self) -> bool {
        self.ipi.is_wanted()
    }

    fn online(&self) -> CpuMask {
        self.ipi.machine.online()
    }

    fn obey(&self, command: &Command) -> Result<i64, Refusal> {
        let Self { puppet, ipi } = *self;
        let machine = &ipi.machine;
        let platform = &machine.platform;
        let me = machine.this_cpu();
        let mailbox = machine.lab.mailbox(me);
        let about = command.arguments[0] as CpuId;
        match Verb::try_from(command.verb).map_err(|_| Refusal::Invalid)? {
            Verb::IrqsOff => platform.irqs_disable(),
            Verb::IrqsOn => {
                platform.irqs_enable();
                puppet.mailboxes.take_pending(platform);
            }
            // Both wait for other CPUs, with interrupts on.
            Verb::Offline | Verb::Online if !platform.irqs_enabled() => {
                return Err(Refusal::Invalid);
            }
            Verb::Offline => ipi.cpu_down(about).map_err(refusal)?,
            Verb::Online => ipi.cpu_up(about).map_err(refusal)?,
            Verb::Spin => puppet.mailboxes.set_awake(me, true),
            Verb::Idle => puppet.mailboxes.set_awake(me, false),
            Verb::Halt => {
                // The last moment at which an interrupt can come too early: a search stops here,
                // and not where the CPU looks once more before it sleeps.
                platform.irqs_disable();
                platform.idle_unless(&|| false);
            }
            Verb::Queue => {
                let mut found = [0; ANSWERS];
                let queued = ipi.read_queue(&mut found).ok_or(Refusal::Unsupported)?;
                for (answer, element) in mailbox.answer.iter().zip(found).take(queued) {
                    answer.store(element as u16, Ordering::Relaxed);
                }
                return Ok(queued as i64);
            }
            Verb::Finish => return puppet.mailboxes.finish(self, command),
            verb => {
                let task = Context {
                    ipi,
                    held: ipi.functions.objects.held_by_task(me),
                    made: Some(&mailbox.call),
                    inside: None,
                };
                return Ok(task.obey(verb, command)?);
            }
        }
        Ok(0)
    }
}

fn refusal(error: HotplugError) -> Refusal {
    match error {
        HotplugError::Busy => Refusal::Busy,
        HotplugError::Invalid => Refusal::Invalid,
        HotplugError::Vetoed => Refusal::NoMemory,
        HotplugError::NotStarted => Refusal::NotStarted,
    }
}
