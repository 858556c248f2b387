//! A reader of KTAP, version 1, written by its specification and not by what `vmm` writes:
//! <https://docs.kernel.org/dev-tools/ktap.html>. Stricter than a reader of kernel logs has to be:
//! it refuses lines that are none of the four kinds.

/// A test, and those nested in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Whether its result is `ok`.
    pub is_ok: bool,
    /// Its description.
    pub name: String,
    /// The directive, if it has one.
    pub directive: Option<String>,
    /// The diagnostic data behind that.
    pub data: String,
    /// The diagnostic lines before its result.
    pub lines: Vec<String>,
    /// The tests in it.
    pub tests: Vec<Self>,
}

/// The directives of version 1.
const DIRECTIVES: [&str; 5] = ["SKIP", "TODO", "XFAIL", "TIMEOUT", "ERROR"];

/// The tests at the top of `text`.
///
/// # Errors
/// What is not as specified.
pub fn parse(text: &str) -> Result<Vec<Test>, String> {
    if !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let mut lines: Vec<_> = text.lines().rev().collect();
    let tests = block(&mut lines, 0)?;
    match lines.pop() {
        None => Ok(tests),
        Some(line) => Err(format!("behind the last test: {line:?}")),
    }
}

/// The line at this depth of nesting that comes next, without its indentation.
fn next<'a>(lines: &[&'a str], depth: usize) -> Option<&'a str> {
    let line = lines.last()?.strip_prefix(&"  ".repeat(depth))?;
    (!line.starts_with(' ')).then_some(line)
}

/// A version line, a plan, and as many tests as it says. Diagnostic lines can be anywhere.
fn block(lines: &mut Vec<&str>, depth: usize) -> Result<Vec<Test>, String> {
    if next(lines, depth) != Some("KTAP version 1") {
        return Err(format!("no version line: {:?}", lines.last()));
    }
    lines.pop();
    let mut said = diagnostics(lines, depth);
    let plan = next(lines, depth).and_then(|line| line.strip_prefix("1.."));
    let plan: usize = plan
        .and_then(|count| count.parse().ok())
        .ok_or_else(|| format!("no plan: {:?}", lines.last()))?;
    lines.pop();
    let mut tests = Vec::new();
    while tests.len() < plan {
        said.extend(diagnostics(lines, depth));
        let is_nested = next(lines, depth + 1) == Some("KTAP version 1");
        let nested = match is_nested {
            true => block(lines, depth + 1)?,
            false => Vec::new(),
        };
        said.extend(diagnostics(lines, depth));
        let line = next(lines, depth).ok_or_else(|| format!("no result: {:?}", lines.last()))?;
        lines.pop();
        let mut test = result(line, tests.len() + 1)?;
        if test.is_ok && nested.iter().any(|it| !it.is_ok) {
            return Err(format!("{line:?}, and a test in it is not"));
        }
        test.tests = nested;
        test.lines = std::mem::take(&mut said);
        tests.push(test);
    }
    Ok(tests)
}

fn diagnostics(lines: &mut Vec<&str>, depth: usize) -> Vec<String> {
    let mut said = Vec::new();
    while let Some(line) = next(lines, depth).and_then(|line| line.strip_prefix('#')) {
        said.push(line.trim().to_owned());
        lines.pop();
    }
    said
}

/// `<result> <number> [<description>][ # [<directive>] [<diagnostic data>]]`
fn result(line: &str, number: usize) -> Result<Test, String> {
    let (is_ok, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(format!("no result: {line:?}")),
    };
    let (digits, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    if digits != number.to_string() {
        return Err(format!("not test {number}: {line:?}"));
    }
    let (name, data) = match rest.split_once('#') {
        Some((name, data)) => (name, data.trim()),
        None => (rest, ""),
    };
    let (first, behind) = data.split_once(' ').unwrap_or((data, ""));
    let is_directive = DIRECTIVES.contains(&first);
    let must_fail = ["TIMEOUT", "ERROR"].contains(&first);
    if must_fail && is_ok {
        return Err(format!("ok, and {first}: {line:?}"));
    }
    Ok(Test {
        is_ok,
        name: name.trim().to_owned(),
        directive: is_directive.then(|| first.to_owned()),
        data: if is_directive { behind } else { data }.to_owned(),
        lines: Vec::new(),
        tests: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_read() {
        let tests = parse(
            "KTAP version 1\n1..2\n  KTAP version 1\n  1..2\n    KTAP version 1\n    1..2\n    \
             not ok 1 test_1\n    ok 2 test_2\n  not ok 1 test_3\n  ok 2 test_4 # SKIP\nnot ok 1 \
             example_test_1\n# said\nok 2 example test 2 # rcode=0\n",
        )
        .unwrap();
        assert_eq!(tests.len(), 2);
        assert_eq!(tests[0].tests[0].tests[1].name, "test_2");
        assert_eq!(tests[0].tests[1].directive.as_deref(), Some("SKIP"));
        assert_eq!(
            (tests[1].data.as_str(), tests[1].directive.as_ref()),
            ("rcode=0", None)
        );
        assert_eq!(tests[1].lines, ["said"]);
    }

    #[test]
    fn what_is_not_as_specified_is_refused() {
        for text in [
            "",
            "1..0\n",
            "KTAP version 1\n",
            "KTAP version 1\n1..1\n",
            "KTAP version 1\n1..1\nok 2 a\n",
            "KTAP version 1\n1..0\nok 1 a\n",
            "KTAP version 1\n1..1\nok 1 a # TIMEOUT\n",
            "KTAP version 1\n1..1\nok 1 a",
            "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 a\nok 1 b\n",
            "KTAP version 1\n1..1\nok 1 a\nhello\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
