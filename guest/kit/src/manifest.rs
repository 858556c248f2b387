//! What the guest says of itself to a reader of its image: [`shared::manifest`] says how, and
//! `docs/manifest.md` what for. [`declare!`](crate::declare!) puts a record into the image; each
//! stands beside what it describes. What describes a guest as a whole ([`Record::guest`], and the
//! root of its source), the guest declares itself.

pub use shared::manifest::*;

use shared::manifest::SourceRole::SkipFile;

/// Puts a [`Record`] into the image's manifest, or `[N]` of them. It makes no code and takes no
/// memory of the guest.
#[macro_export]
macro_rules! declare {
    ([$count:expr] $records:expr) => {
        const _: () = {
            // SAFETY: the section holds records and nothing else, as its readers expect.
            #[used]
            #[unsafe(link_section = ".manifest")]
            static RECORDS: [$crate::manifest::Record; $count] = $records;
        };
    };
    ($($record:expr),+ $(,)?) => {
        $($crate::declare!([1] [$record]);)+
    };
}

/// Declares a value of the key `$key` for each variant in `$kind::ALL`, under its name. A variant
/// gets `$flags` if the method `$is` says so of it.
#[macro_export]
macro_rules! declare_values {
    ($key:literal, $kind:ty $(, $flags:ident if $is:ident)*) => {
        $crate::declare!([<$kind>::ALL.len()] {
            let mut records = [$crate::manifest::Record::value($key, 0, ""); <$kind>::ALL.len()];
            let mut at = 0;
            while at < records.len() {
                let kind = <$kind>::ALL[at];
                records[at] = $crate::manifest::Record::value($key, at as u32, kind.name());
                $(if kind.$is() {
                    records[at] = records[at].with($crate::manifest::$flags);
                })*
                at += 1;
            }
            records
        });
    };
}

declare! {
    // All other code passes through these files: to show a CPU there says nothing.
    Record::source(SkipFile, "/kit/src/sync/"),
    Record::source(SkipFile, "/kit/src/metal/"),
    Record::source(SkipFile, "/kit/src/probe.rs"),
}
