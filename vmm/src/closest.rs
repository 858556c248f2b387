//! Guesses which of several words was meant by one that is not among them. Knows nothing of what
//! the words are.

/// How alike two words have to be, from 0 (not at all) to 1 (equal). As `clap` has it for options,
/// so that all of the command guesses alike.
const LIKENESS: f64 = 0.7;

/// The word of `known` that is most like `word`, if one is like it at all.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        // Of a word that is much shorter, each letter is somewhere in the other.
        .filter(|known| known.len() <= 2 * word.len() && word.len() <= 2 * known.len())
        .map(|known| (strsim::jaro(word, known), known))
        .filter(|(likeness, known)| *likeness > LIKENESS && *known != word)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

/// What to add to a message about `word`, which is none of `known`: a guess, or nothing.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(word, known).map_or_else(String::new, |it| format!("; did you mean \"{it}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUES: [&str; 4] = ["fifo", "filo", "kmalloc", "llist"];

    #[test]
    fn the_most_alike_is_meant() {
        assert_eq!(closest("kmaloc", QUEUES), Some("kmalloc"));
        assert_eq!(closest("fil", QUEUES), Some("filo"));
        assert_eq!(did_you_mean("lists", QUEUES), "; did you mean \"llist\"?");
    }

    #[test]
    fn nothing_is_meant_by_what_is_like_nothing() {
        assert_eq!(closest("zzz", QUEUES), None);
        assert_eq!(closest("", QUEUES), None);
        assert_eq!(closest("fifo", [] as [&str; 0]), None);
        assert_eq!(did_you_mean("zzz", QUEUES), "");
        assert_eq!(did_you_mean("nosuch.bin", ["o"]), "");
        // A word is no guess for itself.
        assert_eq!(closest("fifo", ["fifo"]), None);
    }
}
