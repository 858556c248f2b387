//! Programs ([`shared::program`]) as the guest reads them: the commands that the function of a call
//! carries out. What a command means is up to the guest. Only reads.

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use shared::cpus::MASK_WORDS;
use shared::manifest::ARGUMENTS;
use shared::program::{Program, STEPS, Step};

use crate::lab::Lab;
use crate::mailbox::Command;

/// A [`Step`], as CPUs see it.
#[derive(Debug)]
#[repr(C)]
struct LabStep {
    verb: AtomicU32,
    flags: AtomicU32,
    arguments: [AtomicU64; ARGUMENTS],
    mask: [AtomicU64; MASK_WORDS],
}

/// A [`Program`], as CPUs see it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct LabProgram {
    length: AtomicU64,
    steps: [LabStep; STEPS],
    reserved: [AtomicU64; 7],
}

const _: () = {
    assert!(size_of::<LabStep>() == size_of::<Step>());
    assert!(offset_of!(LabStep, flags) == offset_of!(Step, flags));
    assert!(offset_of!(LabStep, arguments) == offset_of!(Step, arguments));
    assert!(offset_of!(LabStep, mask) == offset_of!(Step, mask));
    assert!(size_of::<LabProgram>() == size_of::<Program>());
    assert!(offset_of!(LabProgram, length) == offset_of!(Program, length));
    assert!(offset_of!(LabProgram, steps) == offset_of!(Program, steps));
};

/// The commands of the program with this number in `lab`, in their order; none if there is no such
/// program.
pub fn commands(lab: &Lab, number: u64) -> impl Iterator<Item = Command> {
    let program = lab.program(number);
    // The command or the call that brought the number here was published after the program.
    let length = program.map_or(0, |it| it.length.load(Ordering::Relaxed));
    let steps = program.map_or(&[][..], |it| &it.steps);
    let cpus = lab.cpus();
    (1..=length).zip(steps).map(move |(number, step)| {
        let (verb, flags) = (&step.verb, &step.flags);
        Command::read(number, verb, flags, &step.arguments, &step.mask, cpus)
    })
}
