//! A manifest as people read it: a table for each kind of record. Lays out what [`Manifest`] has,
//! and reads no image.

use comfy_table::Table;
use shared::manifest::Measure;

use super::{Choice, Manifest, Word};
use crate::table_style::RULED;

pub(super) fn render(manifest: &Manifest) -> String {
    let guest = &manifest.guest;
    let mut text = format!("{} {}", guest.name, guest.version);
    if !guest.about.is_empty() {
        text += &format!(": {}", guest.about);
    }
    text.push('\n');
    let yes = |is: bool, word: &str| if is { word.to_owned() } else { String::new() };
    let vectors = manifest.vectors.iter().map(|it| {
        let number = format!("{:#04x}", it.number);
        [
            number,
            it.name.clone(),
            it.role.name().to_owned(),
            it.about.clone(),
        ]
    });
    add(&mut text, ["vector", "name", "for", ""], vectors);
    let points = manifest.points.iter().map(|it| {
        let lane = it.lane.clone().unwrap_or_default();
        [it.name.clone(), it.role.name().to_owned(), lane]
    });
    add(&mut text, ["point", "in a trace", "lane"], points);
    let options = manifest.options.iter().map(|it| {
        let values: Vec<_> = it.values.iter().map(value).collect();
        let name = format!("{}=", it.name);
        let about = it.about.clone();
        [name, search(it), bench(it), about, values.join(", ")]
    });
    let header = ["option", "in a search", "in a bench", "", "values"];
    add(&mut text, header, options);
    let deeds = manifest.deeds.iter().map(|it| {
        let alias = it.alias.clone().unwrap_or_default();
        let case = yes(it.in_case, "yes");
        [
            it.number.to_string(),
            it.to_string(),
            alias,
            case,
            it.about.clone(),
        ]
    });
    add(&mut text, ["verb", "deed", "or", "in cases", ""], deeds);
    let counters = manifest.counters.iter().map(|it| {
        let number = it.number.to_string();
        [
            number,
            it.name.clone(),
            it.total.name().to_owned(),
            it.about.clone(),
        ]
    });
    add(&mut text, ["word", "counter", "in all", ""], counters);
    let oracles = manifest
        .oracles
        .iter()
        .map(|it| [it.number.to_string(), it.name.clone(), it.about.clone()]);
    add(&mut text, ["number", "oracle", "what went wrong"], oracles);
    let source = &manifest.source;
    let root = source.root.iter().map(|it| ("begins at", it));
    let files = source.skip_files.iter().map(|it| ("without files", it));
    let functions = source
        .skip_functions
        .iter()
        .map(|it| ("without functions", it));
    let rows = root.chain(files).chain(functions);
    add(
        &mut text,
        ["source", ""],
        rows.map(|(what, path)| [what.to_owned(), path.clone()]),
    );
    text
}

/// Adds a table, unless it has no rows.
fn add<const N: usize>(
    text: &mut String,
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    let mut table = Table::new();
    table.load_style(RULED);
    table.set_header(header);
    rows.for_each(|row| {
        table.add_row(row);
    });
    text.push('\n');
    text.push_str(&table.trim_fmt());
    text.push('\n');
}

/// What a search does with a key.
fn search(word: &Word) -> String {
    match &word.set_to {
        Some(value) => format!("{} to {value}", word.search.name()),
        None => word.search.name().to_owned(),
    }
}

/// What a bench does with a key.
fn bench(word: &Word) -> String {
    let measure = word.bench.map_or("", Measure::name);
    match &word.bench_sets {
        Some(value) => format!("{measure} to {value}"),
        None => measure.to_owned(),
    }
}

/// A value, marked if it asks for a broken design.
fn value(choice: &Choice) -> String {
    match choice.broken {
        true => format!("{} (broken)", choice.name),
        false => choice.name.clone(),
    }
}
