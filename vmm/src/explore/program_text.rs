//! What a case says that one CPU does: deeds with semicolons between them, and `repeat N { … }`
//! around some. Takes the text apart, and knows no deed: what is in the braces of a deed stays a
//! part of its text.

/// How deep `repeat` can be nested.
const DEEPEST: usize = 8;

/// The deeds of `text` in their order, each with one blank between its words. There may be at most
/// `most` of them.
///
/// # Errors
/// Says what makes no sense.
pub(super) fn deeds(text: &str, most: usize) -> Result<Vec<String>, String> {
    within(text, most, 0)
}

fn within(text: &str, most: usize, depth: usize) -> Result<Vec<String>, String> {
    if depth > DEEPEST {
        return Err(format!("repeat is nested more than {DEEPEST} times"));
    }
    let mut deeds = Vec::new();
    for item in items(text)? {
        let more = match item.strip_prefix(REPEAT) {
            Some(rest) if !rest.starts_with(|it: char| it.is_alphanumeric() || it == '-') => {
                repeated(rest, most, depth)?
            }
            _ => vec![spaced(item)],
        };
        if deeds.len() + more.len() > most {
            return Err(too_many(most));
        }
        deeds.extend(more);
    }
    Ok(deeds)
}

const REPEAT: &str = "repeat";

/// The error that there are more deeds than that.
pub(super) fn too_many(most: usize) -> String {
    format!("more than {most} commands for one CPU")
}

/// The deeds of `rest`, which stood behind `repeat`.
fn repeated(rest: &str, most: usize, depth: usize) -> Result<Vec<String>, String> {
    let form = || format!("\"{REPEAT} {}\" is not repeat N {{ DEEDS }}", rest.trim());
    let (times, inside) = rest.split_once('{').ok_or_else(form)?;
    let inside = inside.trim_end().strip_suffix('}').ok_or_else(form)?;
    let times: usize = times.trim().parse().map_err(|_| form())?;
    let once = within(inside, most, depth + 1)?;
    if once.is_empty() {
        return Err(format!(
            "there is nothing to repeat in \"{REPEAT} {}\"",
            rest.trim()
        ));
    }
    match once.len().checked_mul(times) {
        Some(0) => Err(format!(
            "\"{REPEAT} {}\" is to be done 0 times",
            rest.trim()
        )),
        Some(all) if all <= most => Ok(once.iter().cycle().take(all).cloned().collect()),
        _ => Err(too_many(most)),
    }
}

/// The parts between semicolons that are in no braces, but for empty ones.
fn items(text: &str) -> Result<Vec<&str>, String> {
    let mut items = Vec::new();
    let (mut depth, mut from) = (0_usize, 0);
    for (at, it) in text.char_indices() {
        match it {
            '{' => depth += 1,
            '}' => {
                depth = depth.checked_sub(1).ok_or_else(|| {
                    format!(
                        "a brace is closed in \"{}\" that was not opened",
                        text.trim()
                    )
                })?;
            }
            ';' if depth == 0 => {
                items.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    if depth != 0 {
        return Err(format!(
            "a brace is not closed on this line, in \"{}\"",
            text.trim()
        ));
    }
    items.push(&text[from..]);
    Ok(items
        .into_iter()
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .collect())
}

/// `text` with one blank between words.
fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeds_stand_between_semicolons_and_keep_their_braces() {
        let of = |text| deeds(text, 1000).unwrap();
        assert_eq!(of(" a  1 ;; b; "), ["a 1", "b"]);
        assert_eq!(of("a { b;  c }; d"), ["a { b; c }", "d"]);
        assert_eq!(
            of("repeat 2 { a; b { c; d } }; e"),
            ["a", "b { c; d }", "a", "b { c; d }", "e"]
        );
        assert_eq!(
            of("repeat 2 { repeat 2 { a }; b }"),
            ["a", "a", "b", "a", "a", "b"]
        );
        assert_eq!(of("repeat-not 2; repeats"), ["repeat-not 2", "repeats"]);
        assert!(of("").is_empty());
    }

    #[test]
    fn what_cannot_be_repeated_is_named() {
        let deep = format!("{}a{}", "repeat 1 { ".repeat(20), " }".repeat(20));
        for (text, why) in [
            ("a { b", "not closed on this line"),
            ("a } b", "was not opened"),
            ("repeat", "is not repeat N { DEEDS }"),
            ("repeat 2 a", "is not repeat N { DEEDS }"),
            ("repeat x { a }", "is not repeat N { DEEDS }"),
            ("repeat { a }", "is not repeat N { DEEDS }"),
            ("repeat 2 { a } b", "is not repeat N { DEEDS }"),
            ("repeat 2 { ; }", "nothing to repeat"),
            ("repeat 0 { a }", "0 times"),
            ("repeat 11 { a }", "more than 10 commands"),
            (
                "repeat 18446744073709551615 { a; b }",
                "more than 10 commands",
            ),
            ("repeat 6 { a }; repeat 5 { b }", "more than 10 commands"),
            (&deep, "nested more than"),
        ] {
            let error = deeds(text, 10).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
