//! A case as commands, from which deeds, targets and whole CPUs can be taken out. Runs nothing, and
//! does not decide what is taken out.

use std::fmt::Write;

use shared::manifest::Argument;

use super::case::{Case, CaseError};
use crate::cpus::CpuSet;
use crate::lab::command::Command;
use crate::manifest::Manifest;

/// What the CPUs of a case do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The number of CPUs.
    pub cpus: u32,
    /// By CPU: what it is told.
    pub programs: Vec<Vec<Command>>,
}

impl Draft {
    /// What the CPUs of `case` do, in a guest with this manifest.
    ///
    /// # Errors
    /// [`CaseError`] for the first deed that the guest does not have.
    pub fn of(case: &Case, manifest: &Manifest) -> Result<Self, CaseError> {
        Ok(Self {
            cpus: case.cpus,
            programs: case.commands(manifest)?,
        })
    }

    /// The case that has this in place of what the CPUs of `case` do. It has no conditions: they may
    /// be about what is no longer there.
    pub fn text(&self, case: &Case, manifest: &Manifest) -> String {
        let mut text = format!("cpus {}\n", self.cpus);
        // Writing to a string cannot fail.
        if !case.append.is_empty() {
            let _ = writeln!(text, "append {}", case.append);
        }
        for (cpu, program) in self.programs.iter().enumerate() {
            if !program.is_empty() {
                let deeds: Vec<_> = program.iter().map(|it| manifest.words(it)).collect();
                let _ = writeln!(text, "{cpu}: {}", deeds.join("; "));
            }
        }
        for expectation in &case.expectations {
            let _ = writeln!(text, "{expectation}");
        }
        text
    }

    /// The number of deeds.
    pub fn deeds(&self) -> usize {
        self.programs.iter().map(Vec::len).sum()
    }

    /// How large it is: CPUs, deeds, targets, deeds that wait.
    pub fn size(&self) -> (u32, usize, usize, usize) {
        let all = || self.programs.iter().flatten();
        let targets = all().map(|command| command.mask.iter().count()).sum();
        let waits = all().filter(|command| command.wait).count();
        (self.cpus, self.deeds(), targets, waits)
    }

    /// The same with those deeds only for which `keeps` is true, by their number over all CPUs.
    pub fn keeping(&self, keeps: &[bool]) -> Self {
        let mut keeps = keeps.iter();
        let mut programs = self.programs.clone();
        for program in &mut programs {
            program.retain(|_| *keeps.next().unwrap_or(&true));
        }
        Self { programs, ..*self }
    }

    /// The same with the deed of this number changed, as `change` says. `None` if that changes
    /// nothing.
    pub fn changing(&self, number: usize, change: impl FnOnce(&mut Command)) -> Option<Self> {
        let mut changed = self.clone();
        change(changed.programs.iter_mut().flatten().nth(number)?);
        (changed != *self).then_some(changed)
    }

    /// Whether nobody tells a CPU anything, and no deed is about it.
    pub fn is_idle(&self, cpu: u32, manifest: &Manifest) -> bool {
        let program = self.programs.get(cpu as usize);
        program.is_none_or(Vec::is_empty) && *self == self.idling(cpu, manifest)
    }

    /// The same with a CPU that does nothing, and without what is about it.
    pub fn idling(&self, cpu: u32, manifest: &Manifest) -> Self {
        let programs = (0_u32..).zip(&self.programs).map(|(index, program)| {
            let mut kept: Vec<_> = program
                .iter()
                .filter_map(|it| without(it, cpu, 0, manifest))
                .collect();
            kept.retain(|_| index != cpu);
            kept
        });
        Self {
            programs: programs.collect(),
            ..*self
        }
    }

    /// The same without a CPU, and without the deeds that make no sense without it. The CPUs above it
    /// move down.
    pub fn without_cpu(&self, cpu: u32, manifest: &Manifest) -> Self {
        let programs = self.programs.iter().enumerate();
        let others = programs.filter(|(index, _)| *index != cpu as usize);
        let programs = others.map(|(_, program)| {
            let kept = program
                .iter()
                .filter_map(|it| without(it, cpu, 1, manifest));
            kept.collect()
        });
        Self {
            cpus: self.cpus - 1,
            programs: programs.collect(),
        }
    }
}

/// `command` without `cpu`, where the CPUs above it move down by `down`; `None` if it makes no sense
/// then.
fn without(command: &Command, cpu: u32, down: u32, manifest: &Manifest) -> Option<Command> {
    let mut command = command.clone();
    let deed = manifest.deed_numbered(command.verb);
    let arguments = deed.map_or(&[][..], |deed| &deed.arguments);
    for (argument, value) in arguments.iter().zip(&mut command.arguments) {
        match argument {
            Argument::Cpu if *value == u64::from(cpu) => return None,
            Argument::Cpu if *value > u64::from(cpu) => *value -= u64::from(down),
            Argument::Cpus => {
                let others = command.mask.iter().filter(|it| *it != cpu);
                let mask: CpuSet = others
                    .map(|it| it - if it > cpu { down } else { 0 })
                    .collect();
                if mask.is_empty() {
                    return None;
                }
                command.mask = mask;
            }
            _ => {}
        }
    }
    let steps = command.program.iter();
    command.program = steps
        .filter_map(|it| without(it, cpu, down, manifest))
        .collect();
    Some(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::deed::tests::manifest;

    const STORY: &str = "cpus 4\nappend queue=fifo\n0: many 1,3; many 1,3 wait\n2: call-single 3\n\
                         3: call-single 2; many 0-2\nexpect lost\n";

    fn draft() -> (Case, Draft) {
        let case = Case::parse(STORY).unwrap();
        let draft = Draft::of(&case, &manifest()).unwrap();
        (case, draft)
    }

    #[test]
    fn a_draft_says_the_case_again() {
        let (case, draft) = draft();
        let text = draft.text(&case, &manifest());
        let again = Case::parse(&text).unwrap();
        assert_eq!(Draft::of(&again, &manifest()), Ok(draft.clone()));
        assert_eq!(again.append, "queue=fifo");
        assert_eq!(again.expected(""), ["lost"]);
        assert_eq!(draft.size(), (4, 5, 7, 1));
    }

    #[test]
    fn a_cpu_is_taken_out_with_what_is_about_it() {
        let (case, draft) = draft();
        let text = |cpu| draft.without_cpu(cpu, &manifest()).text(&case, &manifest());
        assert_eq!(
            text(2),
            "cpus 3\nappend queue=fifo\n0: call-many 1-2; call-many 1-2 wait\n2: call-many 0-1\n\
             expect lost\n"
        );
        assert_eq!(
            text(0),
            "cpus 3\nappend queue=fifo\n1: call-single 2\n2: call-single 1; call-many 0-1\n\
             expect lost\n"
        );
    }

    #[test]
    fn a_cpu_that_idles_stays_and_nothing_is_about_it() {
        let (case, draft) = draft();
        let idling = draft.idling(2, &manifest());
        assert_eq!(
            idling.text(&case, &manifest()),
            "cpus 4\nappend queue=fifo\n0: call-many 1,3; call-many 1,3 wait\n3: call-many 0-1\n\
             expect lost\n"
        );
        assert!(idling.is_idle(2, &manifest()) && !draft.is_idle(2, &manifest()));
        // CPU 1 does nothing, but is called.
        assert!(!draft.is_idle(1, &manifest()));
    }

    #[test]
    fn deeds_are_numbered_over_all_cpus() {
        let (case, draft) = draft();
        let kept = draft.keeping(&[false, true, false, true, false]);
        assert_eq!(
            kept.text(&case, &manifest()),
            "cpus 4\nappend queue=fifo\n0: call-many 1,3 wait\n3: call-single 2\nexpect lost\n"
        );
        let waits = |it: &mut Command| it.wait = false;
        assert!(draft.changing(0, waits).is_none() && draft.changing(9, waits).is_none());
        assert_eq!(draft.changing(1, waits).unwrap().size(), (4, 5, 7, 0));
    }
}
