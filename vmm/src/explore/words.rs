//! Words for the guest in a search. Some have no effect there, since the search itself says what the CPUs do and how
//! IPIs travel: whoever gives one expects something else than he gets. Others ask for what can break nothing in the
//! memory that is searched. Knows words, and runs nothing.

/// A word that has no effect in a search.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{from}: \"{word}\" has no effect in a search, {why}; leave it out")]
pub struct NoEffect {
    /// Where it stands.
    pub from: &'static str,
    /// The word.
    pub word: String,
    why: &'static str,
}

/// By key: the one value that can be given, if there is one, and why there is no other.
const FIXED: [(&str, Option<&str>, &str); 12] = [
    (
        "transport",
        Some("wire"),
        "in which every IPI goes by transport=wire, so that each moment at which it can arrive is tried",
    ),
    (
        "self-ipi",
        Some("wire"),
        "in which IPIs to oneself go by the wire as well (self-ipi=wire)",
    ),
    (
        "workload",
        Some("puppet"),
        "in which the case says what each CPU does (workload=puppet)",
    ),
    (
        "clock",
        Some("stopped"),
        "in which time stands still (clock=stopped), so that nothing depends on it",
    ),
    (
        "apic",
        None,
        "in which no IPI goes through the local APICs' registers",
    ),
    (
        "eoi",
        None,
        "in which interrupts are taken one at a time, and how each ends decides nothing",
    ),
    ("calls", None, BY_CASE),
    ("for", None, BY_CASE),
    (
        "seed",
        None,
        "whose choices --seed of vmm explore decides, and the case what each CPU does",
    ),
    ("to", None, BY_CASE),
    ("by", None, BY_CASE),
    ("receiver", None, BY_CASE),
];

const BY_CASE: &str = "in which the case says what each CPU does and how often";

/// Words that can break nothing where memory is sequentially consistent, and why.
const HARMLESS: [(&str, &str); 2] = [
    (
        "csd-barrier=off",
        "leaves out a barrier, without which accesses can be reordered, and here none are",
    ),
    (
        "icr-fence=off",
        "leaves out a fence, without which an IPI can overtake a store, and here none does",
    ),
];

fn key(word: &str) -> &str {
    word.split_once('=').map_or(word, |(key, _)| key)
}

/// Refuses `options`, which stand in `from`, if one of them has no effect. What the guest does not know is the
/// guest's to refuse.
///
/// # Errors
/// [`NoEffect`] names the first.
pub fn check(options: &str, from: &'static str) -> Result<(), NoEffect> {
    let useless = options.split_whitespace().find_map(|word| {
        let fixed = FIXED.iter().find(|(known, ..)| *known == key(word));
        let (known, value, why) = fixed?;
        let is_it =
            value.is_some_and(|value| word.strip_prefix(known) == Some(&format!("={value}")));
        (!is_it).then_some((word, *why))
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

/// What is to be known of words in `options` that take effect and can still show nothing, a sentence each. Of two
/// words of one key the last counts, as in the guest.
pub fn warnings(options: &str) -> Vec<String> {
    let last = |key_wanted: &str| {
        let mut words = options.split_whitespace();
        words.rfind(|word| key(word) == key_wanted)
    };
    HARMLESS
        .iter()
        .filter(|(word, _)| last(key(word)) == Some(word))
        .map(|(word, why)| {
            format!(
                "{word} can break nothing in this search: it {why} (sequentially consistent memory)"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_without_effect_is_named_with_the_reason() {
        for word in [
            "transport=shorthand",
            "transport=pv",
            "transport=auto",
            "workload=stress",
            "clock=running",
            "apic=xapic",
            "eoi=pv",
            "calls=7",
            "for=3s",
            "seed=7",
            "to=one",
            "by=call",
            "receiver=running",
            "transport",
        ] {
            let options = format!("queue=filo {word} transport=wire");
            let error = check(&options, "--append").unwrap_err();
            assert_eq!(error.word, word);
            let message = error.to_string();
            assert!(message.starts_with("--append: "), "{message}");
            assert!(message.contains("has no effect in a search, "), "{message}");
        }
    }

    #[test]
    fn what_decides_something_is_let_through_and_so_is_what_is_so_anyway() {
        for options in [
            "",
            "queue=fifo hotplug=no-stop alloc-fail=1/7 mask-check=off csd-barrier=off icr-fence=off",
            "transport=wire workload=puppet clock=stopped",
            // For the guest to refuse, or for another guest to know.
            "quue=filo transporter=x",
        ] {
            assert_eq!(check(options, ""), Ok(()), "{options}");
        }
    }

    #[test]
    fn what_can_break_nothing_is_warned_of_if_it_counts() {
        assert!(warnings("queue=filo csd-barrier=on").is_empty());
        assert!(warnings("csd-barrier=off csd-barrier=on").is_empty());
        let both = warnings("icr-fence=off csd-barrier=on csd-barrier=off");
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(both[0].starts_with("csd-barrier=off can break nothing"));
        assert!(both[1].starts_with("icr-fence=off can break nothing"));
    }
}
