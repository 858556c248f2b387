//! Results of tests in the XML that JUnit began and every continuous integration reads: a
//! `testsuite` for each suite, a `testcase` for each test.

use std::fmt::Display;
use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use super::{CameTo, Suite, Test};

/// The document with `suites`.
///
/// # Errors
/// None are known: it is written to memory.
pub fn document(suites: &[Suite]) -> io::Result<String> {
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let seconds = suites.iter().map(|it| it.seconds).sum();
    let all = suites.iter().collect::<Vec<_>>();
    nest(
        &mut xml,
        &with_counts(element("testsuites", [("name", "vmm")]), &all, seconds),
        |xml| suites.iter().try_for_each(|it| suite(xml, it)),
    )?;
    let mut bytes = xml.into_inner();
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn suite(xml: &mut Writer<Vec<u8>>, suite: &Suite) -> io::Result<()> {
    let mut own = with_counts(
        element("testsuite", [("name", &suite.name)]),
        &[suite],
        suite.seconds,
    );
    if let Some(date) = &suite.date {
        // Readers expect UTC without saying so.
        own = with(own, "timestamp", date.trim_end_matches('Z'));
    }
    nest(xml, &own, |xml| {
        if !suite.facts.is_empty() {
            nest(xml, &BytesStart::new("properties"), |xml| {
                suite.facts.iter().try_for_each(|(name, fact)| {
                    let property = element("property", [("name", name), ("value", fact)]);
                    xml.write_event(Event::Empty(property))
                })
            })?;
        }
        (suite.tests.iter()).try_for_each(|it| test(xml, suite, it))
    })
}

fn test(xml: &mut Writer<Vec<u8>>, suite: &Suite, test: &Test) -> io::Result<()> {
    let own = element(
        "testcase",
        [("classname", &suite.name), ("name", &test.name)],
    );
    let (tag, kind, why) = match &test.came_to {
        CameTo::Passed if test.remarks.is_empty() => return xml.write_event(Event::Empty(own)),
        CameTo::Passed => {
            return nest(xml, &own, |xml| {
                nest(xml, &BytesStart::new("system-out"), |xml| {
                    text(xml, &test.remarks.join("\n"))
                })
            });
        }
        CameTo::Skipped(why) => ("skipped", None, why),
        CameTo::Failed(why) => ("failure", Some("failed"), why),
        CameTo::TimedOut(why) => ("error", Some("timed out"), why),
        CameTo::Error(why) => ("error", Some("error"), why),
    };
    let mut reason = element(tag, [("message", why)]);
    if let Some(kind) = kind {
        reason = with(reason, "type", kind);
    }
    nest(xml, &own, |xml| {
        nest(xml, &reason, |xml| text(xml, &test.remarks.join("\n")))
    })
}

/// How many tests `suites` have, and how they came out.
fn with_counts(own: BytesStart<'static>, suites: &[&Suite], seconds: f64) -> BytesStart<'static> {
    let count = |is_so: fn(&CameTo) -> bool| suites.iter().map(|it| it.count(is_so)).sum::<usize>();
    let counts = [
        ("tests", count(|_| true)),
        ("failures", count(|it| matches!(it, CameTo::Failed(_)))),
        (
            "errors",
            count(|it| matches!(it, CameTo::TimedOut(_) | CameTo::Error(_))),
        ),
        ("skipped", count(|it| matches!(it, CameTo::Skipped(_)))),
    ];
    let own = counts
        .into_iter()
        .fold(own, |own, (key, count)| with(own, key, count));
    with(own, "time", format_args!("{seconds:.3}"))
}

fn element<const N: usize>(
    name: &'static str,
    attributes: [(&str, &(impl Display + ?Sized)); N],
) -> BytesStart<'static> {
    attributes
        .into_iter()
        .fold(BytesStart::new(name), |own, (key, value)| {
            with(own, key, value)
        })
}

fn with(mut own: BytesStart<'static>, key: &str, value: impl Display) -> BytesStart<'static> {
    own.push_attribute((key, &*allowed(&value.to_string())));
    own
}

fn nest(
    xml: &mut Writer<Vec<u8>>,
    own: &BytesStart<'static>,
    body: impl FnOnce(&mut Writer<Vec<u8>>) -> io::Result<()>,
) -> io::Result<()> {
    xml.write_event(Event::Start(own.borrow()))?;
    body(xml)?;
    xml.write_event(Event::End(BytesEnd::from(own.name())))
}

fn text(xml: &mut Writer<Vec<u8>>, text: &str) -> io::Result<()> {
    match text {
        "" => Ok(()),
        text => xml.write_event(Event::Text(BytesText::new(&allowed(text)))),
    }
}

/// `text` with a replacement for each character that XML cannot have, not even escaped (XML 1.0,
/// section 2.2). A guest or a script may have written it.
fn allowed(text: &str) -> String {
    let is_allowed = |letter: char| {
        matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
            && letter != '\u{7f}'
    };
    let shown = |letter: char| match is_allowed(letter) {
        true => letter,
        false => char::REPLACEMENT_CHARACTER,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::suites;
    use super::*;

    #[test]
    fn whatever_a_guest_has_said_is_no_markup() {
        let xml = document(&suites()).unwrap();
        for part in [
            r#"<testsuites name="vmm" tests="5" failures="1" errors="2" skipped="1" time="1.500">"#,
            r#"<testsuite name="a &lt;b&gt; &quot;c&quot;" tests="4""#,
            r#"message="lost # &lt;/failure&gt;"#,
            "type=\"timed out\"",
            "<skipped message=\"SKIP it",
        ] {
            assert!(xml.contains(part), "{part}: {xml}");
        }
        assert!(!xml.contains('\u{1b}') && !xml.contains('\0'), "{xml}");
        assert!(xml.ends_with("</testsuites>\n"));
        assert!(document(&[]).unwrap().contains("tests=\"0\""));
    }
}
