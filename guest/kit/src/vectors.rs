//! The vectors of a guest's interrupts: [`vectors!`](crate::vectors!) gives each a name, says in
//! the manifest what it is for, and has its interrupts counted. The two that every guest has are
//! declared here.

use crate::vector::Vector;

/// Declares vectors: `/// What it is for.` and `pub NAME = NUMBER, "name", Role;` for each, where
/// `Role` is a [`VectorRole`](shared::manifest::VectorRole). Interrupts taken at the vector are
/// counted as `name_received`.
///
/// ```
/// kit::vectors! {
///     /// Look.
///     pub MINE = 0xfb, "mine", Call;
/// }
/// ```
///
/// A vector that is not above [`Vector::LAST`] would not be taken before it, and a run could be judged before:
///
/// ```compile_fail
/// kit::vectors! {
///     /// Look.
///     pub MINE = 0xf0, "mine", Call;
/// }
/// ```
#[macro_export]
macro_rules! vectors {
    ($(
        #[doc = $text:literal]
        $visibility:vis $name:ident = $number:literal, $word:literal, $role:ident;
    )+) => {
        $(
            #[doc = $text]
            $visibility const $name: $crate::platform::Vector =
                $crate::platform::Vector::new($number);
            $crate::declare_vector!($name, $text, $word, $role);
            const _: () = assert!(
                $number > $crate::platform::Vector::LAST.number(),
                "the priority of the vector is not above that of the last"
            );
        )+
    };
}

/// The records of one vector.
#[doc(hidden)]
#[macro_export]
macro_rules! declare_vector {
    ($vector:expr, $text:literal, $word:literal, $role:ident) => {
        $crate::declare! {
            $crate::manifest::Record::vector(
                $vector.number(),
                $word,
                $crate::manifest::VectorRole::$role,
                $text.trim_ascii(),
            ),
            $crate::manifest::Record::counter(
                $crate::counters::CpuCounters::number_of_received($vector),
                concat!($word, "_received"),
                concat!("Times the handler of the ", $word, " vector was entered."),
            )
            .reckoned($crate::manifest::CounterRole::Received)
            .with($crate::manifest::PROGRESS),
        }
    };
}

declare_vector!(
    Vector::LAST,
    "Tells a CPU that it has taken all that was pending.",
    "last",
    Last
);
declare_vector!(
    Vector::WAKE,
    "Leave hlt, and do nothing else.",
    "wake",
    Wake
);
