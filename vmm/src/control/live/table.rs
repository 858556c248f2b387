//! The live table as text: one line per vCPU as far as they fit, one for the rest, and the sum.
//! Only lays out figures.

use std::collections::BTreeMap;
use std::time::Duration;

/// The figures of one vCPU.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub id: u32,
    /// What it is doing.
    pub state: String,
    /// Operations that sent IPIs, per second; `None` if the guest knows of no lab where it would
    /// count them, as the next two.
    pub sent: Option<f64>,
    /// Handler entries per second.
    pub received: Option<f64>,
    /// Calls made per second.
    pub calls: Option<f64>,
    /// Exits that KVM counts, per second, or one word that says why there is no figure.
    pub exits: Result<f64, &'static str>,
    /// Exits to the VMM per second.
    pub user_exits: f64,
}

/// Number of lines beside those of the vCPUs: the title, the header and the sum.
const FRAME: usize = 3;

/// Most characters of a state.
const STATE: usize = 22;

/// Renders `rows`, `time` after the start, for a terminal of this many lines and columns. The text
/// has one line and one column less, so that nothing scrolls and no line wraps.
pub(super) fn render(rows: &[Row], time: Duration, (lines, columns): (u16, u16)) -> String {
    let room = usize::from(lines).saturating_sub(1);
    let shown = match room.saturating_sub(FRAME) {
        all if rows.len() <= all => rows.len(),
        some => some.saturating_sub(1),
    };
    let mut text = vec![title(rows, time), header()];
    text.extend(
        rows[..shown]
            .iter()
            .map(|row| line(&row.id.to_string(), row)),
    );
    if shown < rows.len() {
        let rest = &rows[shown..];
        text.push(line("…", &sum(rest, format!("{} more", rest.len()))));
    }
    text.push(line("sum", &sum(rows, String::new())));
    text.truncate(room);
    let width = usize::from(columns).saturating_sub(1);
    let cut = |line: &String| line.chars().take(width).collect::<String>();
    text.iter().map(cut).collect::<Vec<_>>().join("\n")
}

/// How many vCPUs are in which state, after how many seconds.
fn title(rows: &[Row], time: Duration) -> String {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        let word = row.state.split(' ').next().unwrap_or_default();
        *states.entry(word).or_default() += 1;
    }
    let states: Vec<_> = states
        .into_iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    let seconds = time.as_secs_f64();
    format!(
        "{seconds:.1} s, {} vCPUs: {}",
        rows.len(),
        states.join(", ")
    )
}

fn header() -> String {
    format!(
        "{:>4}  {:<STATE$} {:>9} {:>10} {:>9} {:>9} {:>9}",
        "CPU", "state", "IPIs/s", "received/s", "exits/s", "user/s", "calls/s"
    )
}

fn line(name: &str, row: &Row) -> String {
    let state: String = row.state.chars().take(STATE).collect();
    let exits = row
        .exits
        .map_or_else(str::to_owned, |exits| format!("{exits:.0}"));
    let [sent, received, calls] = [row.sent, row.received, row.calls]
        .map(|rate| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}")));
    format!(
        "{name:>4}  {state:<STATE$} {sent:>9} {received:>10} {exits:>9} {:>9.0} {calls:>9}",
        row.user_exits
    )
}

fn sum(rows: &[Row], state: String) -> Row {
    let all = |of: fn(&Row) -> Option<f64>| rows.iter().map(of).sum();
    Row {
        id: 0,
        state,
        sent: all(|row| row.sent),
        received: all(|row| row.received),
        calls: all(|row| row.calls),
        exits: rows.iter().map(|row| row.exits).sum(),
        user_exits: rows.iter().map(|row| row.user_exits).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(count: u32) -> Vec<Row> {
        (0..count)
            .map(|id| Row {
                id,
                state: if id == 1 {
                    "held at queue.visit"
                } else {
                    "running"
                }
                .to_owned(),
                sent: Some(10.0),
                received: Some(4.0),
                calls: Some(1.0),
                exits: Ok(100.0),
                user_exits: 2.0,
            })
            .collect()
    }

    const TIME: Duration = Duration::from_millis(1530);

    #[test]
    fn every_vcpu_has_a_line_where_there_is_room() {
        let text = render(&rows(3), TIME, (24, 100));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "1.5 s, 3 vCPUs: 1 held, 2 running",
                " CPU  state                     IPIs/s received/s   exits/s    user/s   calls/s",
                "   0  running                       10          4       100         2         1",
                "   1  held at queue.visit           10          4       100         2         1",
                "   2  running                       10          4       100         2         1",
                " sum                                30         12       300         6         3",
            ]
        );
    }

    #[test]
    fn what_does_not_fit_is_summed() {
        let text = render(&rows(1000), TIME, (10, 100));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 9);
        assert!(lines[6].starts_with("   4  running"), "{text}");
        let rest =
            "   …  995 more                    9950       3980     99500      1990       995";
        assert_eq!(lines[7], rest);
        assert!(lines[8].starts_with(" sum "), "{text}");
    }

    #[test]
    fn a_host_that_counts_no_exits_shows_why() {
        let mut rows = rows(2);
        rows[1].exits = Err("blind");
        let text = render(&rows, TIME, (24, 100));
        let exits: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().rev().nth(2))
            .collect();
        assert_eq!(&exits[3..], [Some("blind"), Some("blind")], "{text}");
    }

    #[test]
    fn what_a_guest_does_not_count_is_not_zero() {
        let mut rows = rows(1);
        rows[0] = Row {
            sent: None,
            received: None,
            calls: None,
            ..rows[0].clone()
        };
        let text = render(&rows, TIME, (24, 100));
        let expected =
            "   0  running                        -          -       100         2         -";
        assert!(text.lines().any(|line| line == expected), "{text}");
    }

    proptest! {
        #[test]
        fn a_table_fits_into_any_terminal(count in 0_u32..50, lines: u16, columns: u16) {
            let (lines, columns) = (lines % 60, columns % 120);
            let text = render(&rows(count), TIME, (lines, columns));
            prop_assert!(text.lines().count() < usize::from(lines).max(1));
            let width = usize::from(columns).max(1);
            prop_assert!(text.lines().all(|line| line.chars().count() < width));
        }
    }
}
