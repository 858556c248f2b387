//! Boots the specimen: from a guest image to a machine whose CPUs all wait for their first command,
//! or have not been started. That is the initial state of every schedule. The machine boots on threads, like any other; after
//! that one thread runs all its vCPUs.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use shared::lab::Contexts;
use shared::manifest::VectorRole;
use shared::probe::{Arms, HELD};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::buffering::Buffering;
use super::conditions::Conditions;
use super::errors::{SpecimenError, kvm};
use super::lines::Lines;
use super::machine::Specimen;
use super::passing::Passing;
use super::racing::Racing;
use super::stacks;
use super::state::State;
use super::stop_points::StopPoints;
use super::stopped::{FIRST_VECTOR, Stop, at_rest, bit};
use super::system_state::SystemStates;
use crate::cpus::CpuSet;
use crate::explore::answers::Answers;
use crate::explore::case::Case;
use crate::explore::memory::Memory;
use crate::explore::options;
use crate::explore::schedule::Granularity;
use crate::explore::until::Until;
use crate::lab::Lab;
use crate::machine::exit::Death;
use crate::machine::image::Image;
use crate::machine::kick::Alarm;
use crate::machine::layout::{Contents, Layout, LayoutError};
use crate::machine::lifecycle::Holder;
use crate::machine::message::{Message, OnMessage, Reaction};
use crate::machine::points::Points;
use crate::machine::serial::{Serial, SerialExit};
use crate::machine::symbols::Symbols;
use crate::machine::threads::{End, Event, VcpuThreads};
use crate::machine::{Machine, MachineError, Parts, boot};
use crate::manifest::Manifest;
use crate::page_size::PAGE_SIZE;

/// MiB of RAM in addition to what image and lab need.
pub(super) const SPARE_MIB: u64 = 8;

/// How long the machine may take to boot.
pub(super) const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// The time between two checks whether to give up the boot.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the specimen is made of.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The guest image.
    pub image: &'a Image,
    /// The case.
    pub case: &'a Case,
    /// Options for the guest, in addition to those of the case.
    pub append: &'a str,
    /// Where CPUs stop.
    pub granularity: Granularity,
    /// The memory model.
    pub memory: Memory,
    /// Whether CPUs exit also where a search passes over what they are about to do.
    pub every_exit: bool,
    /// Whether data races are looked for.
    pub data_races: bool,
}

impl Specimen {
    /// Boots the machine, until every CPU that is started waits for its first command. `until` limits
    /// the boot, and everything that is done with the specimen later. It is attached to this thread.
    ///
    /// # Errors
    /// [`SpecimenError`] says why that is not possible.
    pub fn boot(setup: &Setup<'_>, until: Until) -> Result<Self, SpecimenError> {
        let points = Points::read(setup.image.bytes()).map_err(MachineError::from)?;
        let manifest = Manifest::of(setup.image).map_err(MachineError::from)?;
        let manifest = Arc::new(manifest.unwrap_or_default());
        let programs = setup.case.commands(&manifest)?;
        if manifest.ending(CpuSet::default()).is_none() {
            return Err(SpecimenError::NoEnding);
        }
        let vectors = vectors(&manifest)?;
        let stop_points = StopPoints::find(&points, setup.granularity)?;
        let vcpus = setup.case.cpus;
        let pages = shared::lab::Layout::new(vcpus).expect("a case has as many CPUs as a lab can");
        let layout = smallest(setup.image, vcpus, pages.size).map_err(MachineError::from)?;
        let fixed = options::set(&manifest);
        let words = format!("{} {} {fixed}", setup.case.append, setup.append);
        let line =
            boot::command_line(words.trim(), Some(layout.lab.start)).map_err(MachineError::from)?;
        let machine = Machine::build(&Parts {
            image: setup.image,
            vcpus,
            layout: &layout,
            command_line: &line,
            initrd: None,
            is_pc: false,
        })?;
        let lines = Lines::of(setup.image, manifest.source.clone());
        let lab = Lab::prepare(machine.memory.clone(), layout.lab.start, pages)
            .map_err(SpecimenError::Lab)?
            .knowing(manifest);
        let mut serial = run_to_idle(machine, &lab, &points, stop_points.idle, &until)?;
        let alarm = Alarm::set();
        drain(&mut serial, stop_points.idle, &until)?;
        // Before the beginning: a program that is written later is in no state.
        for command in programs.iter().flatten() {
            lab.keep_program(&command.program)?;
        }
        let contexts = stacks::read(&lab, (serial.ram().pages() * PAGE_SIZE) as u64)?;
        let waits_at = (0..vcpus).map(|cpu| lab.waits_at(cpu)).collect();

        let mut specimen = Self {
            cpus: (0..serial.cpus())
                .map(|cpu| at_rest(serial.regs(cpu)))
                .collect(),
            buffering: Buffering::new(setup.memory, setup.granularity != Granularity::Every),
            is_xapic: serial.is_xapic(0).map_err(kvm("show an APIC"))?,
            left: Vec::new(),
            programs,
            answers: Answers::new(setup.case),
            vectors,
            unobserved: lab.unobserved_pages(),
            counted: Vec::new(),
            passing: Passing::of(
                setup.image.bytes(),
                setup.granularity == Granularity::Access && !setup.every_exit,
            ),
            origin: Vec::new(),
            systems: SystemStates::default(),
            root: State {
                numbers: Arc::from([]),
                pages: Vec::new(),
                cpus: Vec::new(),
                key: 0,
            },
            kept: Vec::new(),
            numbers: Arc::from([]),
            has_grown: false,
            sound_ends: HashSet::new(),
            granularity: setup.granularity,
            image: xxh3_128(setup.image.bytes()),
            beginning: 0,
            alarm: Some(alarm),
            symbols: Symbols::of(setup.image.bytes()),
            serial,
            lab,
            points,
            conditions: Conditions::default(),
            lines,
            races: Racing::new(setup.data_races),
            stop_points,
            contexts,
            waits_at,
            is_hurt: false,
            until,
        };
        for cpu in 0..specimen.cpus.len() {
            let has_run = specimen.serial.has_run(cpu);
            if !has_run.map_err(kvm("show whether a vCPU runs"))? {
                specimen.cpus[cpu].at = Stop::NotStarted;
            }
        }
        specimen.begin()?;
        specimen.heed(&setup.case.conditions)?;
        Ok(specimen)
    }

    /// Makes the present state the initial state of every schedule.
    pub(super) fn begin(&mut self) -> Result<(), SpecimenError> {
        self.lab.forget_times();
        for cpu in 0..self.cpus.len() {
            let Contexts { task, handler, .. } = self.contexts[cpu];
            let rsp = self.cpus[cpu].regs.rsp;
            self.clear(task[0], rsp.min(task[1]));
            self.clear(handler[0], handler[1]);
            self.cpus[cpu].forget_dead();
        }
        self.arm(true);
        // Pages that were written during the boot count only if they are written again.
        self.serial
            .forget_written()
            .map_err(kvm("say which pages were written"))?;
        let wake = self.lab.manifest().wake_vector();
        for cpu in 0..self.cpus.len() {
            if self.give(cpu) && !self.cpus[cpu].is_down() {
                // It sleeps, and looks for a command when it is woken.
                self.cpus[cpu].pending |= bit(wake);
            }
        }
        let systems = self.serial.capture().map_err(kvm("show all of a vCPU"))?;
        self.systems = SystemStates::beginning(systems);
        let ram = self.serial.ram();
        let mut origin = Vec::with_capacity(ram.pages() * PAGE_SIZE);
        (0..ram.pages()).for_each(|number| origin.extend_from_slice(ram.page(number)));
        self.beginning = self.hash_of(&origin);
        self.origin = origin;
        // KVM does not report the pages that the VMM writes.
        let posted = self.lab.posted_pages();
        let kept = posted
            .into_iter()
            .map(|number| (number, Arc::new(self.original(number))));
        self.kept = kept.collect();
        self.numbers = self.kept.iter().map(|(number, _)| *number).collect();
        self.root = self.save();
        Ok(())
    }

    /// A hash of all of memory, without the pages whose contents do not matter.
    pub(super) fn hash_of(&self, ram: &[u8]) -> u128 {
        let mut hash = Xxh3::new();
        for (number, page) in ram.chunks(PAGE_SIZE).enumerate() {
            if !self.unobserved.contains(&number) && !self.passing.is_on_page(number) {
                hash.update(page);
            }
        }
        hash.digest128()
    }
}

/// The vectors by which CPUs tell each other to do something or set their timers, and by which the
/// VMM tells them.
fn vectors(manifest: &Manifest) -> Result<Vec<u8>, SpecimenError> {
    if let Some(vector) = manifest.vectors.iter().find(|it| it.number < FIRST_VECTOR) {
        return Err(SpecimenError::Vector {
            name: vector.name.clone(),
            number: vector.number,
        });
    }
    let tells = |role| {
        matches!(
            role,
            VectorRole::Call | VectorRole::Wake | VectorRole::Timer
        )
    };
    let own = manifest.vectors.iter().filter(|it| tells(it.role));
    let mut vectors: Vec<_> = own.map(|it| it.number).collect();
    vectors.push(manifest.wake_vector());
    vectors.sort_unstable();
    vectors.dedup();
    Ok(vectors)
}

/// A layout with little more RAM than is needed, since all of it is copied.
pub(super) fn smallest(image: &Image, vcpus: u32, lab: u64) -> Result<Layout, LayoutError> {
    let with = Contents {
        image_end: image.end(),
        lab,
        initrd: 0,
    };
    match Layout::new(Some(1), vcpus, with) {
        Err(LayoutError::TooSmall { needed, .. }) => {
            Layout::new(Some(needed + SPARE_MIB), vcpus, with)
        }
        other => other,
    }
}

/// Boots `machine` on threads, until every CPU that the guest starts is held where it waits for
/// commands. Then takes the vCPUs from the threads.
pub(super) fn run_to_idle(
    machine: Machine,
    lab: &Lab,
    points: &Points,
    idle: u64,
    until: &Until,
) -> Result<Serial, SpecimenError> {
    let Machine {
        vcpus,
        vm,
        devices,
        memory,
    } = machine;
    let point = points.at(idle).expect("it was found among them");
    let mut arms = Arms::default();
    arms[point.index / 64] |= 1 << (point.index % 64);
    (0..lab.cpus()).for_each(|cpu| lab.arm(cpu, &arms));
    lab.arm_point(point.armed_address(), HELD);

    let (held, is_held) = mpsc::channel();
    let held = std::sync::Mutex::new(held);
    let interrupts = vm.interrupts();
    let on_message: Arc<OnMessage> = Arc::new(move |vcpu, message| match message {
        Message::Reached { point, .. } if point == idle => {
            let held = held
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            // The receiver is gone if the boot was given up.
            let _ = held.send(vcpu);
            Reaction::Hold(Holder::Operator)
        }
        Message::Dispatch { dispatch, .. } => {
            // An IPI to a CPU that does not exist is lost, as on any machine.
            let _ = interrupts.send(dispatch);
            Reaction::GoOn
        }
        _ => Reaction::GoOn,
    });
    let cpus = vcpus.len() as u64;
    let threads = VcpuThreads::new(vcpus, &devices, &memory, &on_message, None)?;
    threads.run();
    let deadline = Instant::now() + BOOT_LIMIT;
    let mut ready = HashSet::new();
    // The guest says how many it has started before it lets them go on to where they are held.
    let started = || match u64::from(lab.header().cpus_online) {
        0 => cpus,
        started => started.min(cpus),
    };
    while (ready.len() as u64) < started() {
        if let Some(why) = until.is_over() {
            return Err(SpecimenError::Ended(why));
        }
        match is_held.recv_timeout(LOOK_EVERY) {
            Ok(vcpu) => _ = ready.insert(vcpu),
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {
                for event in threads.events().take_all() {
                    let Event::Ended { vcpu, end } = event else {
                        continue;
                    };
                    let said = devices.console().take();
                    let said = String::from_utf8_lossy(&said).trim().to_owned();
                    return Err(SpecimenError::NotReady(match end {
                        End::GuestExit(_) if !said.is_empty() => said,
                        End::Dead(death) => format!("it died on CPU {vcpu}: {death}"),
                        End::PowerOff | End::Reset => {
                            format!("it died on CPU {vcpu}: {}", Death::TurnedOff)
                        }
                        End::GuestExit(code) => format!("CPU {vcpu} wrote {code:#x}"),
                        End::Panicked => "a thread of the VMM panicked".to_owned(),
                    }));
                }
            }
            Err(_) => return Err(SpecimenError::Late(BOOT_LIMIT)),
        }
    }
    let vcpus = threads.stop()?;
    let _ = devices.console().take();
    let serial = Serial::new(vcpus, vm, devices, &memory)?;
    for cpu in 0..serial.cpus() {
        let has_run = serial.has_run(cpu);
        let has_run = has_run.map_err(kvm("show whether a vCPU runs"))?;
        if has_run && !ready.contains(&serial.apic_id(cpu)) {
            let text = format!("CPU {cpu} runs, and does not wait for commands");
            return Err(SpecimenError::NotReady(text));
        }
    }
    Ok(serial)
}

/// Has every CPU take the interrupts that are still pending from the boot. If a guest always has
/// another one pending, or does not return to where it waits, it is not ready.
pub(super) fn drain(serial: &mut Serial, idle: u64, until: &Until) -> Result<(), SpecimenError> {
    let deadline = Instant::now() + BOOT_LIMIT;
    for cpu in 0..serial.cpus() {
        while serial.is_interrupted(cpu).map_err(kvm("show an APIC"))? {
            loop {
                if let Some(why) = until.is_over() {
                    return Err(SpecimenError::Ended(why));
                }
                if Instant::now() >= deadline {
                    return Err(SpecimenError::Late(BOOT_LIMIT));
                }
                match serial.run(cpu) {
                    SerialExit::Reached { point, .. } if point == idle => break,
                    SerialExit::GuestExit(code) => {
                        let text = format!("CPU {cpu} wrote {code:#x}");
                        return Err(SpecimenError::NotReady(text));
                    }
                    SerialExit::Dead(death) => {
                        let text = format!("it died on CPU {cpu}: {death}");
                        return Err(SpecimenError::NotReady(text));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::manifest::Record;

    #[test]
    fn cpus_are_told_by_the_vectors_that_the_guest_has_for_that() {
        let of = |number, name, role| Record::vector(number, name, role, "");
        let told = Manifest::saying(&[
            of(0xf2, "up", VectorRole::Wake),
            of(0xf1, "told", VectorRole::Call),
            of(0xf0, "done", VectorRole::Last),
            of(0xf4, "tick", VectorRole::Timer),
        ]);
        assert_eq!(vectors(&told).unwrap(), [0xf1, 0xf2, 0xf4]);
        assert_eq!(vectors(&Manifest::default()).unwrap().len(), 1);
        let low = Manifest::saying(&[of(0x40, "low", VectorRole::Call)]);
        let error = vectors(&low).unwrap_err().to_string();
        assert!(error.contains("\"low\" is 0x40"), "{error}");
    }
}
