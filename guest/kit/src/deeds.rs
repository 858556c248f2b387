//! What the CPUs of a guest can be told to do, said once: from one list, [`deeds!`](crate::deeds!)
//! makes the enum of verbs that the guest matches on, and the records of its manifest.

/// Makes an enum of verbs, and declares each as a deed: its number, its name and perhaps a second
/// one, its arguments, the key whose values they are if they are words (`of`), its flags, and a
/// sentence that says what it does. A comment above a deed is only for readers of the source.
///
/// ```
/// use kit::manifest::{ENDS, IN_CASE, Record};
///
/// kit::declare!(Record::word("place", "Where to."), Record::value("place", 0, "left"));
/// kit::deeds! {
///     /// What a CPU can be told.
///     pub enum Verb {
///         Walk = 1 "walk" or "go" (Number) [IN_CASE] "Walks so many steps.",
///         /// It stays there.
///         Turn = 2 "turn" (Word) of "place" [IN_CASE] "Turns there.",
///         Finish = 3 "finish" (Cpus) [ENDS] "Ends the workload.",
///     }
/// }
/// assert_eq!(Verb::try_from(2), Ok(Verb::Turn));
/// assert_eq!(Verb::try_from(4), Err(4));
/// ```
#[macro_export]
macro_rules! deeds {
    (
        $(#[$about_all:meta])*
        $visible:vis enum $verbs:ident {
            $(
                $(#[$more:meta])*
                $verb:ident = $number:literal $name:literal $(or $alias:literal)?
                    ($($argument:ident),*) $(of $key:literal)? [$flags:expr] $about:literal,
            )+
        }
    ) => {
        $(#[$about_all])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        $visible enum $verbs {
            $(
                #[doc = $about]
                $(#[$more])*
                $verb = $number,
            )+
        }

        impl TryFrom<u32> for $verbs {
            /// The number that is no verb's.
            type Error = u32;

            fn try_from(number: u32) -> Result<Self, u32> {
                match number {
                    $($number => Ok(Self::$verb),)+
                    unknown => Err(unknown),
                }
            }
        }

        $(
            $crate::declare!({
                const ARGUMENTS: &[$crate::manifest::Argument] =
                    &[$($crate::manifest::Argument::$argument),*];
                $crate::manifest::Record::deed($number, $name, ARGUMENTS, $about)
                    $(.or($alias))?
                    $(.words_of($key))?
                    .with($flags)
            });
        )+
    };
}
