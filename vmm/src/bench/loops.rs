//! Measures the rows of the classic benchmark: the guest makes each row's loop and times it itself,
//! as that benchmark does in a kernel, and tells the times at the end. Knows nothing of how the
//! figures are shown.

use super::classic::{ClassicCell, ClassicCost, ClassicRow, RECEIVERS, ROWS};
use super::costs::Effort;
use super::error::BenchError;
use super::filter::Filter;
use super::measure::{Unmeasured, interrupted, passed};
use super::words::{BenchWords, Unmeasurable};
use crate::Config;
use crate::control::Tracing;
use crate::stats::cycles::nanoseconds;
use crate::stats::latency::Time;
use crate::stats::rounds::Loop;
use crate::verdict::Kind;

/// The rows that `filter` wants of a guest with these words.
///
/// # Errors
/// [`Unmeasurable`] if the guest has no such loop.
pub fn classic_cells(
    filter: &Filter,
    words: &BenchWords,
) -> Result<Vec<ClassicCell>, Unmeasurable> {
    words.check_classic()?;
    let or_none = |wanted: &[String]| match wanted {
        [] => vec![None],
        wanted => wanted.iter().cloned().map(Some).collect(),
    };
    let receivers = match &filter.receiver[..] {
        [] => vec![RECEIVERS[0].to_owned()],
        wanted => wanted.to_vec(),
    };
    let receivers = receivers
        .iter()
        .filter(|it| RECEIVERS.contains(&it.as_str()));
    let mut cells = Vec::new();
    for receiver in receivers {
        for transport in or_none(&filter.transport) {
            for queue in or_none(&filter.queue) {
                cells.extend(ROWS.map(|row| ClassicCell {
                    row: row.to_owned(),
                    receiver: receiver.clone(),
                    transport: transport.clone(),
                    queue: queue.clone(),
                }));
            }
        }
    }
    cells.retain(|cell| words.has_classic(cell));
    Ok(cells)
}

/// Measures `cells` one after the other on machines like `config`, into `rows`. `progress` is
/// called with what the guest is told, and its number from 0, before each. Returns the exit status,
/// as [`super::measure`] does.
///
/// # Errors
/// [`BenchError`] if there is no machine, or the bench was interrupted. What was measured before is
/// in `rows`.
pub fn measure_classic(
    config: &Config,
    words: &BenchWords,
    cells: &[ClassicCell],
    effort: Effort,
    rows: &mut Vec<ClassicRow>,
    mut progress: impl FnMut(usize, &str),
) -> Result<u8, BenchError> {
    if config.vcpus < 2 {
        return Err(BenchError::TooFew);
    }
    let mut unmeasured = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        let told = words.tell_classic(cell);
        progress(number, &told);
        let told = format!("{told} {}", words.tell_rounds(effort.rounds));
        let result = row(config, &told, effort)?;
        unmeasured.extend(result.as_ref().err().map(|it| (it.is_finding, it.status)));
        let result = result.map(|cost| {
            let dry_run = rows.iter().find(|it| it.cell.is_dry_run_of(cell));
            let dry_run = dry_run.and_then(|it| it.result.as_ref().ok());
            let own = cell.is_dry_run_of(cell).then_some(cost.total);
            cost.over(own.or_else(|| dry_run.map(|it| it.total)))
        });
        rows.push(ClassicRow {
            cell: cell.clone(),
            result: result.map_err(|it| it.why),
        });
    }
    Ok(super::status(cells.len(), &unmeasured))
}

/// Measures the row that the guest is `told` to repeat.
fn row(
    config: &Config,
    told: &str,
    effort: Effort,
) -> Result<Result<ClassicCost, Unmeasured>, BenchError> {
    let config = Config {
        append: format!("{} {told}", config.append),
        trace: Tracing {
            rounds: true,
            ..config.trace
        },
        ..config.clone()
    };
    let mut loops = Vec::new();
    let mut words = None;
    for _ in 0..effort.repetitions {
        let outcome = crate::run(&config)?;
        if outcome.verdict.kind == Kind::Interrupted {
            return Err(interrupted(outcome.verdict));
        }
        if !passed(&outcome) {
            return Ok(Err(Unmeasured::of(&outcome)));
        }
        let trace = outcome.trace.as_ref();
        let Some((trace, own)) = trace.and_then(|trace| Some((trace, Loop::in_trace(trace)?)))
        else {
            return Ok(Err(Unmeasured {
                why: "the guest has not told how long its loop took".to_owned(),
                is_finding: false,
                status: 1,
            }));
        };
        let time = |cycles| Time {
            cycles,
            ns: nanoseconds(cycles, trace.tsc_khz).round() as u64,
        };
        loops.push((time(own.delivered), time(own.total)));
        words = outcome.words;
    }
    Ok(Ok(ClassicCost::of(&loops, words)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::words::tests::words;

    #[test]
    fn the_rows_are_in_their_order_for_each_way_that_is_wanted() {
        let rows = |filter: &Filter| {
            let cells = classic_cells(filter, &words()).unwrap();
            let told = cells.iter().map(|cell| words().tell_classic(cell));
            told.collect::<Vec<_>>()
        };
        let told = rows(&Filter::default());
        assert_eq!(told.len(), 5);
        assert_eq!(told[0], "does=rounds loop=dry-run state=halted");
        let filter = Filter {
            receiver: vec!["running".to_owned(), "stalled".to_owned()],
            transport: vec!["x2apic".to_owned(), "pv".to_owned()],
            queue: vec!["better".to_owned(), "good".to_owned()],
            ..Filter::default()
        };
        let told = rows(&filter);
        assert_eq!(told.len(), 10, "nobody is stalled, and the guest has no pv");
        let last = "does=rounds loop=broadcast-lock state=running way=x2apic design=good";
        assert_eq!(told[9], last);
    }
}
