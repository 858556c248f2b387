//! The report as a page: one HTML document that holds all it shows and loads nothing. This module
//! embeds the figures as JSON; the scripts beside this file draw them. Whatever a guest or a script
//! may have written, they insert as text and never as markup.

pub mod comparison;
mod histogram;
pub mod story;
mod timeline;

use std::io::{self, Write};

use serde::Serialize;

use super::Report;
use super::traced::waited;
use crate::stats::latency::Latencies;
use crate::stats::timeline::Timeline;
use crate::stats::trace::Trace;
use histogram::Histogram;

/// The document around the parts of a page, the same for every page.
const FRAME: &str = include_str!("frame.html");
const BODY: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// Makes elements, and what several pages show in the same way.
const ELEMENTS: &str = include_str!("elements.js");
/// Draws lanes of boxes and arrows over time, and does not know what they mean.
const LANES: &str = include_str!("lanes.js");
/// The lanes of those who drive a machine.
const DRIVEN: &str = include_str!("driven.js");
const HISTOGRAM: &str = include_str!("histogram.js");
const SCRIPT: &str = include_str!("page.js");

/// The parts of a page on runs.
const RUN: Parts = Parts {
    body: BODY,
    styles: &[STYLE],
    scripts: &[ELEMENTS, LANES, DRIVEN, HISTOGRAM, SCRIPT],
};

/// The parts of a page, besides its data.
struct Parts {
    body: &'static str,
    styles: &'static [&'static str],
    scripts: &'static [&'static str],
}

impl Parts {
    /// Writes a page of these parts with a title, in which `data` writes what the scripts show.
    fn write<W: Write>(
        &self,
        out: &mut W,
        title: &str,
        data: impl FnOnce(&mut W) -> io::Result<()>,
    ) -> io::Result<()> {
        let (head, tail) = FRAME.split_once("{data}\n").expect("a place for the data");
        out.write_all(
            head.replace("{style}", &self.styles.concat())
                .replace("{version}", env!("CARGO_PKG_VERSION"))
                .replace("{body}", self.body)
                // Last: a name in it can look like another place.
                .replace("{title}", &escaped(title))
                .as_bytes(),
        )?;
        data(out)?;
        let script = |script: &&str| format!("<script>\n{script}</script>\n");
        let scripts: String = self.scripts.iter().map(script).collect();
        out.write_all(tail.replace("{scripts}\n", &scripts).as_bytes())
    }
}

/// `text` as it stands between the tags of HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Writes `value` as JSON, in an element with `attributes`, by which a script finds it.
fn embed(out: &mut impl Write, attributes: &str, value: &impl Serialize) -> io::Result<()> {
    write!(out, "<script type=\"application/json\" {attributes}>")?;
    serde_json::to_writer(Inert(&mut *out), value)?;
    writeln!(out, "</script>")
}

/// What the page shows of one machine.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// Its report.
    pub report: &'a Report,
    /// Where its vCPUs stood, if it did not end well.
    pub post_mortem: &'a str,
    /// The guest's command line.
    pub command_line: &'a str,
    /// What was traced.
    pub trace: Option<&'a Trace>,
}

/// What the scripts get of one machine.
#[derive(Serialize)]
struct Document<'a> {
    report: &'a Report,
    /// What ran, and where.
    what: String,
    /// The provenance, line by line.
    provenance: Vec<(&'static str, String)>,
    post_mortem: &'a str,
    command_line: &'a str,
    histograms: Vec<Histogram>,
    timeline: Option<timeline::Document>,
}

impl<'a> Document<'a> {
    fn new(section: &Section<'a>) -> Self {
        let mut document = Self {
            report: section.report,
            what: section.report.provenance.title(),
            provenance: section.report.provenance.facts(),
            post_mortem: section.post_mortem,
            command_line: section.command_line,
            histograms: Vec::new(),
            timeline: None,
        };
        if let Some(trace) = section.trace {
            let timeline = Timeline::new(trace);
            let latencies = Latencies::new(trace, &timeline);
            let all = [
                ("IPI sent to handler", &latencies.ipi),
                ("call to last run", &latencies.call),
            ];
            let waited = waited(trace, &latencies);
            let waits = waited.iter().map(|it| (it.lane.as_str(), &it.times));
            let histograms = all
                .into_iter()
                .chain(waits)
                .filter_map(|(name, times)| Histogram::new(name, times, trace.tsc_khz));
            document.histograms = histograms.collect();
            document.timeline = timeline::Document::new(trace, &timeline, &section.report.findings);
        }
        document
    }
}

/// Writes a page on machines that have run one after the other, with the reason why there were no
/// more of them, if `refused` has one.
///
/// # Errors
/// Those of `out`.
pub fn write(
    out: &mut impl Write,
    machines: &[Section<'_>],
    refused: Option<&str>,
) -> io::Result<()> {
    let title = match machines {
        [] => "vmm: no machine has run".to_owned(),
        [first, ..] => format!(
            "{}: {}",
            first.report.result,
            first.report.provenance.title()
        ),
    };
    RUN.write(out, &title, |out| {
        for section in machines {
            let result = section.report.result;
            let attributes = format!("class=\"machine\" data-result=\"{result}\"");
            embed(out, &attributes, &Document::new(section))?;
        }
        embed(out, "id=\"refusal\"", &refused)
    })
}

/// Passes JSON on with every `<` as an escape. JSON has it only in strings, and in HTML it could
/// end the element that holds the JSON, or begin a comment.
struct Inert<W>(W);

impl<W: Write> Write for Inert<W> {
    fn write(&mut self, json: &[u8]) -> io::Result<usize> {
        let mut pieces = json.split(|byte| *byte == b'<');
        self.0.write_all(pieces.next().unwrap_or_default())?;
        for piece in pieces {
            self.0.write_all(b"\\u003c")?;
            self.0.write_all(piece)?;
        }
        Ok(json.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Checks that nothing in `page` would have a browser load anything.
    #[track_caller]
    pub(super) fn loads_nothing(page: &str) {
        for loads in [
            "src=",
            "href=",
            "@import",
            "url(",
            "fetch(",
            "XMLHttpRequest",
        ] {
            assert!(!page.contains(loads), "{loads}");
        }
        // The name of a namespace, which is not loaded.
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains("http://") && !page.contains("https://"));
    }

    #[test]
    fn a_page_has_all_its_parts_and_loads_none() {
        let page = text(|out| write(out, &[], Some("no </script> here")));
        assert!(page.contains(BODY));
        for part in RUN.styles.iter().chain(RUN.scripts) {
            assert!(page.contains(part));
        }
        let places = FRAME.matches('{').count();
        assert_eq!(
            places, 6,
            "title, style, body, version, data and scripts have a place each"
        );
        assert!(!BODY.contains('{'));
        assert!(page.contains(
            r#"<script type="application/json" id="refusal">"no \u003c/script> here"</script>"#
        ));
        loads_nothing(&page);
    }

    #[test]
    fn a_title_is_text() {
        let page = text(|out| RUN.write(out, "<b> & {body} {style}", |_| Ok(())));
        assert!(page.contains("<title>&lt;b&gt; &amp; {body} {style}</title>"));
    }

    #[test]
    fn parts_do_not_end_the_elements_that_hold_them() {
        for parts in [&RUN, &story::STORY, &comparison::COMPARISON] {
            for script in parts.scripts {
                assert!(!script.contains("</script") && !script.contains("<!--"));
                assert!(!script.contains("innerHTML") && !script.contains("insertAdjacentHTML"));
            }
            for style in parts.styles {
                assert!(!style.contains("</style"));
            }
        }
    }

    #[test]
    fn no_string_is_markup_and_each_comes_back_whole() {
        let said = "</script><script>alert('<!--')</script>\u{2028}\"\\";
        let json = text(|out| Ok(serde_json::to_writer(Inert(out), said)?));
        assert!(!json.contains('<'), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), said);
    }
}
