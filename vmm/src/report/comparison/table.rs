//! A comparison for people: what differs in what was run, then the figures that differ. Lays out
//! what [`Comparison`] already has.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table};

use super::difference::{Interval, Sample, Significance};
use super::{Comparison, Figure, Kind};
use crate::table_style::RULED;

/// Renders `comparison`.
pub fn table(comparison: &Comparison) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, comparison);
    text
}

fn write(text: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let Comparison { a, b, .. } = comparison;
    for (name, side) in [("a", a), ("b", b)] {
        let date = plain(&side.provenance.date);
        writeln!(text, "{name:<10} {}, of {date}", plain(&side.file))?;
    }
    writeln!(text, "\n{}", differing(comparison))?;
    for note in &comparison.notes {
        writeln!(text, "note       {}", plain(note))?;
    }
    if !comparison.notes.is_empty() {
        text.push('\n');
    }
    figures(text, comparison)?;
    for (name, only) in [("a", &comparison.only_a), ("b", &comparison.only_b)] {
        for what in only {
            writeln!(text, "only in {name}: {}", plain(what))?;
        }
    }
    Ok(())
}

fn differing(comparison: &Comparison) -> String {
    if comparison.differs.is_empty() {
        return "what was run is the same but for when\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(RULED);
    table.set_header(["differs in", "a", "b"]);
    for it in &comparison.differs {
        table.add_row([&it.what, &it.a, &it.b].map(|text| plain(text)));
    }
    format!("{}\n", table.trim_fmt())
}

/// The figures that are not equal, and how many others there are.
fn figures(text: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let mut table = Table::new();
    table.load_style(RULED);
    let mut header = vec!["", "a", "b", "b - a", "b/a"];
    let has_spread = comparison.of == Kind::Benches;
    if has_spread {
        header.extend(["from", "to", ""]);
    }
    table.set_header(header);
    let mut equal = 0;
    let mut shown = 0;
    for group in &comparison.groups {
        let is_equal = |figure: &&Figure| figure.difference.significance == Significance::Equal;
        let differing: Vec<_> = group.figures.iter().filter(|it| !is_equal(it)).collect();
        equal += group.figures.len() - differing.len();
        shown += differing.len();
        if differing.is_empty() {
            continue;
        }
        table.add_row([plain(&group.name)]);
        for figure in differing {
            table.add_row(row(figure, has_spread));
        }
    }
    for column in table.column_iter_mut().skip(1).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    match shown {
        0 => writeln!(text, "no figure differs")?,
        _ => writeln!(text, "{}\n", table.trim_fmt())?,
    }
    if equal > 0 {
        writeln!(
            text,
            "{equal} more figures are equal; --json and --html have them"
        )?;
    }
    Ok(())
}

fn row(figure: &Figure, has_spread: bool) -> Vec<Cell> {
    let difference = &figure.difference;
    let unit = figure.unit;
    let ratio = |ratio: f64| format!("{ratio:.2}");
    let mut row = vec![
        format!("  {}", plain(&figure.name)),
        sample(&figure.a, unit),
        sample(&figure.b, unit),
        value(difference.difference, unit),
        difference.ratio.map(ratio).unwrap_or_default(),
    ];
    if has_spread {
        let ends = difference.ratio_interval.map(|ends| ends.map(ratio));
        row.extend(ends.unwrap_or_default());
        row.push(difference.significance.name().to_owned());
    }
    row.into_iter().map(Cell::new).collect()
}

/// A figure, with its interval if it has one.
fn sample(sample: &Sample, unit: &str) -> String {
    let own = value(sample.value, unit);
    match sample.interval {
        Some(Interval { low, high, .. }) => {
            // The figure need not be in the middle of it.
            let low = value(low, unit);
            let low = low.split(' ').next().unwrap_or_default();
            format!("{own} ({low} to {})", value(high, unit))
        }
        None => own,
    }
}

fn value(value: f64, unit: &str) -> String {
    match unit {
        "ns" => format!("{:.1} µs", value / 1000.0),
        "s" => format!("{value:.3} s"),
        "" if value.fract() == 0.0 => format!("{value:.0}"),
        "" => format!("{value:.2}"),
        unit => format!("{value:.0} {unit}"),
    }
}

/// `text`, which comes from a file that anyone can have written, without what would move a cursor.
fn plain(text: &str) -> String {
    let shown = |letter: char| if letter.is_control() { '?' } else { letter };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_unit_that_people_read() {
        assert_eq!(value(1_234.0, "ns"), "1.2 µs");
        assert_eq!(value(0.25, "s"), "0.250 s");
        assert_eq!(value(12.0, ""), "12");
        assert_eq!(value(1.005, ""), "1.00");
        assert_eq!(value(7.0, "cycles"), "7 cycles");
        let runs = Sample::of_runs(1_500.0, &[1_000.0, 1_500.0, 3_000.0]);
        assert_eq!(sample(&runs, "ns"), "1.5 µs (1.0 to 3.0 µs)");
    }

    #[test]
    fn nothing_from_a_file_moves_the_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a?[2Jb?");
    }
}
