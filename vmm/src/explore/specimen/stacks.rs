//! Where the guest keeps its stacks, as it says in the lab. This decides which memory is cleared
//! and which code belongs to handlers. The guest is untrusted, so it is checked before it is used.

use shared::lab::Contexts;

use super::errors::SpecimenError;
use crate::lab::Lab;

/// The largest stack that is accepted, in bytes.
const LARGEST: u64 = 16 << 20;

/// The stacks of the CPUs of `lab`, in a machine whose RAM ends at `ram_end`.
///
/// # Errors
/// [`SpecimenError::Stack`] for the first one that is not possible.
pub(super) fn read(lab: &Lab, ram_end: u64) -> Result<Vec<Contexts>, SpecimenError> {
    let all: Vec<_> = (0..lab.cpus()).map(|cpu| lab.contexts(cpu)).collect();
    check(&all, ram_end)?;
    Ok(all)
}

fn check(all: &[Contexts], ram_end: u64) -> Result<(), SpecimenError> {
    let named = all.iter().enumerate().flat_map(|(cpu, stacks)| {
        [
            (cpu, "stack of tasks", stacks.task),
            (cpu, "stack of handlers", stacks.handler),
        ]
    });
    // Zeroes mean that there is no such stack.
    let mut said: Vec<_> = named.filter(|(.., stack)| *stack != [0, 0]).collect();
    said.sort_by_key(|(.., [start, _])| *start);
    let mut last = 0;
    for (cpu, which, [start, end]) in said {
        let why = if start >= end {
            "which ends before it begins"
        } else if end > ram_end {
            "where no memory is"
        } else if end - start > LARGEST {
            "which is more than any stack needs"
        } else if start < last {
            "where another stack is"
        } else {
            last = end;
            continue;
        };
        return Err(SpecimenError::Stack {
            cpu,
            which,
            start,
            end,
            why,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RAM: u64 = 32 << 20;

    fn refused(all: &[Contexts]) -> String {
        check(all, RAM).unwrap_err().to_string()
    }

    #[test]
    fn stacks_side_by_side_are_believed_and_zeroes_say_nothing() {
        let one = Contexts {
            task: [0x1000, 0x2000],
            handler: [0x2000, 0x3000],
            ..Contexts::default()
        };
        let other = Contexts {
            task: [RAM - 0x1000, RAM],
            handler: [0, 0],
            ..Contexts::default()
        };
        assert!(check(&[one, other, Contexts::default()], RAM).is_ok());
    }

    #[test]
    fn what_cannot_be_a_stack_is_named() {
        let of = |task, handler| Contexts {
            task,
            handler,
            ..Contexts::default()
        };
        let sound = [0x1000, 0x2000];
        for (stacks, why) in [
            (of([0, 1 << 63], sound), "where no memory is"),
            (of([0, u64::MAX], [0, 0]), "where no memory is"),
            (of([0x2000, 0x1000], [0, 0]), "ends before it begins"),
            (of([0x2000, 0x2000], [0, 0]), "ends before it begins"),
            (of([0, RAM], [0, 0]), "more than any stack needs"),
            (of([0x1fff, 0x3000], sound), "where another stack is"),
            (of(sound, sound), "where another stack is"),
        ] {
            let message = refused(&[Contexts::default(), stacks]);
            assert!(message.contains(why), "{message}");
            assert!(message.contains("of CPU 1 is from 0x"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn what_is_believed_is_in_memory_and_apart(
            words in proptest::collection::vec(0..RAM + 0x1000, 8),
        ) {
            let stacks = |words: &[u64]| Contexts {
                task: [words[0], words[1]],
                handler: [words[2], words[3]],
                ..Contexts::default()
            };
            let all = [stacks(&words[..4]), stacks(&words[4..])];
            if check(&all, RAM).is_ok() {
                for page in (0..RAM).step_by(0x1000) {
                    let holds = |[start, end]: &[u64; 2]| (*start..*end).contains(&page);
                    let stacks = all.iter().flat_map(|it| [it.task, it.handler]);
                    prop_assert!(stacks.filter(holds).count() <= 1);
                }
            }
        }
    }
}
