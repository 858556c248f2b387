//! A number with its noun, in the singular or the plural, for everything that people are shown.

/// `1 call`, `2 calls`.
pub fn counted(number: u64, noun: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        assert_eq!(
            [0, 1, 2].map(|it| counted(it, "call")),
            ["0 calls", "1 call", "2 calls"]
        );
    }
}
