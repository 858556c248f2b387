//! What a CPU can be told to do with `workload=puppet`, as the manifest has it.
//! [`told`](crate::told) does it.

use kit::manifest::Argument::{self, Cpu, Cpus, Number, Word};
use kit::manifest::{ENDS, IN_CASE, Record};
use kit::{declare, declare_values};

use crate::program::Variable;

/// The key whose values are the words by which a deed names a variable.
const VARIABLE: &str = "variable";

declare!(
    Record::word(VARIABLE, "A word of memory that CPUs share; deeds name it.")
        .without_effect_in_search()
);
declare_values!("variable", Variable);

/// Makes the verbs, and declares each with its name, its arguments and what it does.
macro_rules! deeds {
    ($(
        $verb:ident = $number:literal $name:literal
            ($($argument:ident),*) [$flags:expr] $about:literal;
    )+) => {
        /// What a CPU can be told.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Verb {
            $(#[doc = $about] $verb = $number,)+
        }

        impl TryFrom<u32> for Verb {
            /// The number that is no verb's.
            type Error = u32;

            fn try_from(number: u32) -> Result<Self, u32> {
                match number {
                    $($number => Ok(Self::$verb),)+
                    unknown => Err(unknown),
                }
            }
        }

        $(declare!({
            const ARGUMENTS: &[Argument] = &[$($argument),*];
            let record = Record::deed($number, $name, ARGUMENTS, $about).with($flags);
            if takes_words(ARGUMENTS) { record.words_of(VARIABLE) } else { record }
        });)+
    };
}

const fn takes_words(arguments: &[Argument]) -> bool {
    let mut at = 0;
    while at < arguments.len() {
        if matches!(arguments[at], Word) {
            return true;
        }
        at += 1;
    }
    false
}

deeds! {
    Store = 1 "store" (Word, Number) [IN_CASE] "Writes the number.";
    Load = 2 "load" (Word) [IN_CASE]
        "Reads the variable into the CPU's next register: r0, then r1 …";
    Exchange = 3 "xchg" (Word, Number) [IN_CASE]
        "Writes the number, and reads what was there into the next register, in one.";
    Add = 4 "add" (Word, Number) [IN_CASE]
        "Adds the number, and reads what was there into the next register, in one.";
    Fence = 5 "fence" () [IN_CASE] "A full fence.";
    Send = 6 "send" (Cpu, Word) [IN_CASE]
        "Interrupts a CPU, whose handler reads the variable into its next register: h0, then h1 …";
    IrqsOff = 7 "irqs-off" () [IN_CASE] "Disables interrupts.";
    IrqsOn = 8 "irqs-on" () [IN_CASE] "Enables interrupts.";
    Finish = 9 "finish" (Cpus) [ENDS] "Ends the test on this CPU, as on all of these.";
}
