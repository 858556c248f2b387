//! Results of tests in the kernel's own form, KTAP version 1
//! (<https://docs.kernel.org/dev-tools/ktap.html>): a test for each suite, with the tests of the
//! suite nested in it.

use std::fmt::Write;

use super::{CameTo, Suite, Test};

/// One level of nesting.
const INDENT: &str = "  ";

/// What a parser takes for another outcome if it is the first word behind the result.
const DIRECTIVES: [&str; 5] = ["SKIP", "TODO", "XFAIL", "TIMEOUT", "ERROR"];

/// The document with `suites`.
pub fn document(suites: &[Suite]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut text, suites);
    text
}

fn write_all(text: &mut String, suites: &[Suite]) -> std::fmt::Result {
    writeln!(text, "KTAP version 1\n1..{}", suites.len())?;
    for (number, suite) in (1..).zip(suites) {
        writeln!(text, "{INDENT}KTAP version 1")?;
        for (name, fact) in &suite.facts {
            writeln!(text, "{INDENT}# {}: {}", line(name), line(fact))?;
        }
        writeln!(text, "{INDENT}1..{}", suite.tests.len())?;
        for (number, test) in (1..).zip(&suite.tests) {
            write_test(text, number, test)?;
        }
        let result = result(suite.tests.iter().all(|it| it.came_to.is_good()));
        writeln!(text, "{result} {number} {}", name(&suite.name))?;
    }
    Ok(())
}

fn write_test(text: &mut String, number: usize, test: &Test) -> std::fmt::Result {
    // Lines about a test stand before its result.
    for remark in test.remarks.iter().flat_map(|it| it.lines()) {
        writeln!(text, "{INDENT}# {}", line(remark))?;
    }
    let (directive, why) = match &test.came_to {
        CameTo::Passed => ("", ""),
        CameTo::Failed(why) => ("", why.as_str()),
        CameTo::TimedOut(why) => ("TIMEOUT", why.as_str()),
        CameTo::Error(why) => ("ERROR", why.as_str()),
        CameTo::Skipped(why) => ("SKIP", why.as_str()),
    };
    let why = line(why);
    let first = why.split_whitespace().next().unwrap_or_default();
    let seems_directive = directive.is_empty() && DIRECTIVES.contains(&first);
    let said = [directive, if seems_directive { "said:" } else { "" }, &why];
    let said = said.into_iter().filter(|it| !it.is_empty());
    let said = said.collect::<Vec<_>>().join(" ");
    let (result, name) = (result(test.came_to.is_good()), name(&test.name));
    match said.as_str() {
        "" => writeln!(text, "{INDENT}{result} {number} {name}"),
        said => writeln!(text, "{INDENT}{result} {number} {name} # {said}"),
    }
}

fn result(is_good: bool) -> &'static str {
    if is_good { "ok" } else { "not ok" }
}

/// `text` in one line, without what would move a cursor.
fn line(text: &str) -> String {
    let shown = |letter: char| match letter {
        '\n' | '\r' | '\t' => ' ',
        letter if letter.is_control() => char::REPLACEMENT_CHARACTER,
        letter => letter,
    };
    text.chars()
        .map(shown)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// `text` as a name, which cannot have a `#` in it.
fn name(text: &str) -> String {
    line(text).replace('#', "_")
}

#[cfg(test)]
mod tests {
    use super::super::tests::suites;
    use super::*;

    #[test]
    fn no_text_begins_another_line_or_is_a_directive() {
        let expected = "\
KTAP version 1
1..2
  KTAP version 1
  # words: queue=fifo seed=1
  1..4
  # where CPU 0 stood
  # \u{fffd}[2J
  not ok 1 verdict # lost # </failure> ok 7 x
  ok 2 oracle.lost
  ok 3 oracle._ # SKIP SKIP it\u{fffd}
  not ok 4 more # TIMEOUT 30 s
not ok 1 a <b> \"c\"
  KTAP version 1
  1..1
  not ok 1 verdict # ERROR no KVM
not ok 2 refused
";
        assert_eq!(document(&suites()), expected);
        assert_eq!(document(&[]), "KTAP version 1\n1..0\n");
        let mut suites = suites();
        suites[1].tests[0].came_to = CameTo::Failed("SKIP me".to_owned());
        assert!(document(&suites).contains("not ok 1 verdict # said: SKIP me\n"));
    }
}
