//! Options for the guest in a search. Some have no effect there, because the search itself decides
//! what the CPUs do and how IPIs travel; they are refused, since a user who gives one expects
//! something else. Others can break nothing under the memory model of the search. The guest's
//! manifest says which options these are, and which ones the search sets itself.

use shared::manifest::Search;

use super::memory::Memory;
use crate::manifest::Manifest;

/// An option that has no effect in a search.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{from}: \"{word}\" has no effect in a search, {why}; leave it out")]
pub struct NoEffect {
    /// Where it was given.
    pub from: &'static str,
    /// The option, as `key=value` or `key`.
    pub word: String,
    why: String,
}

/// The key of an option.
pub(super) fn key(word: &str) -> &str {
    word.split_once('=').map_or(word, |(key, _)| key)
}

/// The options that a search sets, so that only the order of steps decides what happens.
pub fn set(manifest: &Manifest) -> String {
    let set = manifest.options.iter().filter_map(|word| {
        let value = word.set_to.as_ref()?;
        Some(format!("{}={value}", word.name))
    });
    set.collect::<Vec<_>>().join(" ")
}

/// Refuses `options`, which were given in `from`, if one of them has no effect. Options that the
/// guest does not know are left for the guest to refuse.
///
/// # Errors
/// [`NoEffect`] for the first such option.
pub fn check(manifest: &Manifest, options: &str, from: &'static str) -> Result<(), NoEffect> {
    let useless = options.split_whitespace().find_map(|word| {
        let mut known = manifest.options.iter();
        let known = known.find(|it| it.name == key(word))?;
        let why = match (known.search, &known.set_to) {
            (Search::Decides, _) => return None,
            (_, Some(value)) if word == format!("{}={value}", known.name) => return None,
            (_, Some(value)) => format!("which sets {}={value} itself", known.name),
            (_, None) => "as the guest says".to_owned(),
        };
        Some((word, known.because.clone().unwrap_or(why)))
    });
    match useless {
        None => Ok(()),
        Some((word, why)) => Err(NoEffect {
            from,
            word: word.to_owned(),
            why,
        }),
    }
}

/// One sentence for each of `options` that has an effect, but can break nothing in a search with
/// this memory model. Of two options with the same key the last one counts, as in the guest.
pub fn warnings(manifest: &Manifest, options: &str, memory: Memory) -> Vec<String> {
    if memory != Memory::SequentiallyConsistent {
        return Vec::new();
    }
    let last = |wanted: &str| {
        let mut words = options.split_whitespace();
        words.rfind(|word| key(word) == wanted)
    };
    let values = manifest.options.iter().flat_map(|word| {
        let harmless = word.values.iter().filter(|value| value.harmless);
        harmless.map(|value| (&word.name, value))
    });
    values
        .filter_map(|(key, value)| {
            let word = last(key).filter(|it| it.split_once('=') == Some((key, &value.name)))?;
            let why = value.because.as_ref();
            let why = why.map_or_else(String::new, |why| format!(": it {why}"));
            Some(format!(
                "{word} can break nothing in this search{why} (sequentially consistent memory)"
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::manifest::Record;

    /// A guest with options of all kinds.
    fn manifest() -> Manifest {
        let records = [
            Record::word("way", "")
                .set_by_search("wire")
                .because("in which all goes by the wire"),
            Record::word("clock", "").set_by_search("stopped"),
            Record::word("calls", "")
                .without_effect_in_search()
                .because("in which the case says how often"),
            Record::word("seed", "").without_effect_in_search(),
            Record::word("queue", ""),
            Record::value("queue", 0, "fifo"),
            Record::word("fence", ""),
            Record::value("fence", 0, "on"),
            Record::value("fence", 1, "off").harmless("leaves out a fence"),
            Record::word("barrier", ""),
            Record::value("barrier", 0, "off").with(shared::manifest::HARMLESS),
        ];
        Manifest::saying(&records)
    }

    #[test]
    fn a_word_without_effect_is_named_with_the_reason() {
        for (word, why) in [
            ("way=pigeon", "in which all goes by the wire"),
            ("way", "in which all goes by the wire"),
            ("clock=running", "which sets clock=stopped itself"),
            ("calls=7", "in which the case says how often"),
            ("seed=7", "as the guest says"),
        ] {
            let options = format!("queue=filo {word} way=wire");
            let error = check(&manifest(), &options, "--append").unwrap_err();
            assert_eq!(error.word, word);
            assert_eq!(
                error.to_string(),
                format!("--append: \"{word}\" has no effect in a search, {why}; leave it out")
            );
        }
    }

    #[test]
    fn what_decides_something_is_let_through_and_so_is_what_is_so_anyway() {
        for options in [
            "",
            "queue=fifo fence=off barrier=off",
            "way=wire clock=stopped",
            // The guest has to refuse these.
            "quue=filo wayward=x",
        ] {
            assert_eq!(check(&manifest(), options, ""), Ok(()), "{options}");
        }
        // Without a manifest it is not known which options have an effect.
        assert_eq!(check(&Manifest::default(), "calls=7", ""), Ok(()));
    }

    #[test]
    fn a_search_sets_what_the_guest_says() {
        assert_eq!(set(&manifest()), "clock=stopped way=wire");
        assert_eq!(set(&Manifest::default()), "");
    }

    #[test]
    fn what_can_break_nothing_is_warned_of_if_it_counts() {
        let of = |options, memory| warnings(&manifest(), options, memory);
        let warnings = |options| of(options, Memory::SequentiallyConsistent);
        assert!(of("fence=off", Memory::Tso).is_empty());
        assert!(warnings("queue=filo fence=on").is_empty());
        assert!(warnings("fence=off fence=on").is_empty());
        assert_eq!(
            warnings("fence=off barrier=on barrier=off"),
            [
                "barrier=off can break nothing in this search (sequentially consistent memory)",
                "fence=off can break nothing in this search: it leaves out a fence (sequentially \
                 consistent memory)",
            ]
        );
    }
}
