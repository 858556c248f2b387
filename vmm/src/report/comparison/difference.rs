//! What a difference of two figures is: a ratio, and whether it is larger than the runs of either
//! side differ among themselves. The one meaning that `bench --baseline` and `compare` share. Knows
//! neither what is compared nor how it is shown.

use schemars::JsonSchema;
use serde::Serialize;

/// The confidence that an interval is to have. Too few runs cannot give it.
const CONFIDENCE: f64 = 0.95;

/// A figure of one side.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Sample {
    /// The figure.
    pub value: f64,
    /// Where it would come out if all was measured again; `null` if there was one run, or the runs
    /// were not kept apart.
    pub interval: Option<Interval>,
}

/// An interval that has the median of all possible runs in it with some confidence, by the order of
/// the runs that there were. It assumes nothing of how they are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Interval {
    /// Its lower end, which is the figure of a run.
    pub low: f64,
    /// Its upper end, which is the figure of a run.
    pub high: f64,
    /// The probability with which such an interval has the median in it. With fewer than six runs
    /// the interval has all of them, and that is less than 0.95.
    pub confidence: f64,
    /// How many runs there were.
    pub runs: usize,
}

/// Whether a difference says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Significance {
    /// There is no difference.
    Equal,
    /// The intervals overlap: the difference is no larger than runs of one side differ.
    WithinSpread,
    /// They do not.
    Apart,
    /// One side has no interval, so that nobody can say.
    NoSpread,
}

impl Significance {
    /// In a word or two, for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::WithinSpread => "within the spread",
            Self::Apart => "apart",
            Self::NoSpread => "one sample",
        }
    }
}

/// The difference of two figures.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Difference {
    /// The second less the first.
    pub difference: f64,
    /// The second over the first; `null` if that is not positive: a count less its
    /// background can come out below zero.
    pub ratio: Option<f64>,
    /// The least and the largest ratio of what is in the intervals; `null` without intervals.
    pub ratio_interval: Option<[f64; 2]>,
    /// Whether that says anything.
    pub significance: Significance,
}

impl Sample {
    /// A figure without a spread.
    pub fn single(value: f64) -> Self {
        Self {
            value,
            interval: None,
        }
    }

    /// A figure with the figures of its runs, in ascending order.
    pub fn of_runs(value: f64, runs: &[f64]) -> Self {
        Self {
            value,
            interval: Interval::of(runs),
        }
    }
}

impl Interval {
    /// By `runs`, in ascending order. Of `n` runs, the `k`-th from either end enclose the median
    /// unless fewer than `k` fall on one side of it, as many heads of `n` coins: so the innermost
    /// pair is taken that still has [`CONFIDENCE`], or else the outermost.
    fn of(runs: &[f64]) -> Option<Self> {
        let count = runs.len();
        if count < 2 {
            return None;
        }
        // Below a thousand runs, which is the most a bench makes, this is no subnormal number.
        let mut heads = 0.5_f64.powi(i32::try_from(count).ok()?);
        let mut fewer = heads;
        let mut chosen = (0, 1.0 - 2.0 * fewer);
        for place in 1..count / 2 {
            heads *= (count - place + 1) as f64 / place as f64;
            fewer += heads;
            let confidence = 1.0 - 2.0 * fewer;
            if confidence < CONFIDENCE {
                break;
            }
            chosen = (place, confidence);
        }
        let (place, confidence) = chosen;
        Some(Self {
            low: runs[place],
            high: runs[count - 1 - place],
            confidence,
            runs: count,
        })
    }
}

impl Difference {
    /// From `before` to `after`.
    pub fn between(before: &Sample, after: &Sample) -> Self {
        let ratio = |from: f64, to: f64| (from > 0.0 && to >= 0.0).then(|| to / from);
        let intervals = before.interval.zip(after.interval);
        Self {
            difference: after.value - before.value,
            ratio: ratio(before.value, after.value),
            ratio_interval: intervals.and_then(|(before, after)| {
                Some([
                    ratio(before.high, after.low)?,
                    ratio(before.low, after.high)?,
                ])
            }),
            significance: match intervals {
                Some((before, after)) if before.high < after.low || after.high < before.low => {
                    Significance::Apart
                }
                Some(_) => Significance::WithinSpread,
                // Exactly: these are counts, or figures read from one document.
                None if before.value == after.value => Significance::Equal,
                None => Significance::NoSpread,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(count: u32) -> Vec<f64> {
        (1..=count).map(f64::from).collect()
    }

    #[test]
    fn an_interval_has_the_confidence_that_it_says() {
        assert_eq!(Interval::of(&runs(1)), None);
        let of = |count| Interval::of(&runs(count)).unwrap();
        let three = of(3);
        assert_eq!((three.low, three.high, three.confidence), (1.0, 3.0, 0.75));
        // 1 - 2 / 2^6, and the well-known 1 - 2 * (1 + 10 + 45) / 2^10 would be too little.
        assert_eq!(
            (of(6).low, of(6).high, of(6).confidence),
            (1.0, 6.0, 0.96875)
        );
        let ten = of(10);
        assert_eq!((ten.low, ten.high), (2.0, 9.0));
        assert!((ten.confidence - (1.0 - 22.0 / 1024.0)).abs() < 1e-12);
        let many = of(1000);
        assert!(many.confidence >= CONFIDENCE && many.confidence < 0.96);
        assert_eq!((many.low, many.high), (469.0, 532.0));
    }

    #[test]
    fn only_what_is_outside_of_both_intervals_is_apart() {
        let sample = |runs: &[f64]| Sample::of_runs(runs[runs.len() / 2], runs);
        let before = sample(&[9.0, 10.0, 11.0]);
        let within = Difference::between(&before, &sample(&[11.0, 12.0, 13.0]));
        assert_eq!(within.significance, Significance::WithinSpread);
        assert_eq!(within.ratio, Some(1.2));
        assert_eq!(within.ratio_interval, Some([1.0, 13.0 / 9.0]));
        for far in [[12.0, 12.0, 13.0], [1.0, 2.0, 8.0]] {
            let apart = Difference::between(&before, &sample(&far));
            assert_eq!(apart.significance, Significance::Apart);
        }
    }

    #[test]
    fn one_sample_has_no_spread_and_nothing_has_no_ratio() {
        let single = Sample::single;
        let between = |before, after| Difference::between(&single(before), &single(after));
        assert_eq!(between(2.0, 2.0).significance, Significance::Equal);
        let unknown = between(2.0, 3.0);
        assert_eq!(unknown.significance, Significance::NoSpread);
        assert_eq!((unknown.ratio, unknown.ratio_interval), (Some(1.5), None));
        assert_eq!(between(0.0, 3.0).ratio, None);
        assert_eq!(between(-1.0, 3.0).ratio, None);
        assert_eq!(between(3.0, -1.0).ratio, None);
        let spread = Sample::of_runs(2.0, &[1.0, 2.0, 3.0]);
        let half = Difference::between(&single(9.0), &spread);
        assert_eq!(half.significance, Significance::NoSpread);
    }
}
