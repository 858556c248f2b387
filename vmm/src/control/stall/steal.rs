//! Steal time, as on an overcommitted host: each vCPU is kept out of the guest again and again, at
//! random times. A pure plan: it follows from the seed alone, and no clock is read.

use std::str::FromStr;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::settings::{Settings, StallError, duration, number};
use crate::cpus::CpuSet;

/// Shares of a vCPU's time that can be stolen, in percent.
const SHARES: std::ops::RangeInclusive<f64> = 0.1..=99.0;

/// The settings of steal time. Written as `seed=7,mean=2ms,share=20%`; `cpus=0-3` spares the
/// others.
#[derive(Debug, Clone, PartialEq)]
pub struct Steal {
    /// Equal seeds make equal plans.
    pub seed: u64,
    /// Mean length of a stall, 10 µs to a day. The lengths are distributed exponentially.
    pub mean: Duration,
    /// The part of its time that a vCPU is away in the long run: 0.001 to 0.99.
    pub share: f64,
    /// The vCPUs that are stolen from; `None` for all.
    pub cpus: Option<CpuSet>,
}

impl Steal {
    /// Whether anything is stolen from vCPU `cpu`.
    pub fn takes_from(&self, cpu: u32) -> bool {
        self.cpus
            .as_ref()
            .is_none_or(|cpus| cpus.iter().any(|taken| taken == cpu))
    }

    /// The plan for vCPU `cpu`. It does not depend on the other vCPUs.
    pub fn plan(&self, cpu: u32) -> StealPlan {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(cpu.into());
        let away = self.mean.as_secs_f64();
        StealPlan {
            random,
            away,
            present: away * self.presence_per_absence(),
        }
    }

    /// The ratio of the time that a vCPU is present to the time that it is away, in the long run.
    pub fn presence_per_absence(&self) -> f64 {
        (1.0 - self.share) / self.share
    }
}

impl FromStr for Steal {
    type Err = StallError;

    fn from_str(text: &str) -> Result<Self, StallError> {
        let example = "seed=7,mean=2ms,share=20%";
        let settings = Settings::read(text, &["seed", "mean", "share", "cpus"], example)?;
        Ok(Self {
            seed: settings.value("seed", number)?,
            mean: settings.value("mean", |text| duration(text, Duration::from_micros(10)))?,
            share: settings.value("share", share)?,
            cpus: settings.optional("cpus", str::parse)?,
        })
    }
}

fn share(text: &str) -> Result<f64, String> {
    text.strip_suffix('%')
        .and_then(|percent| percent.parse().ok())
        .filter(|percent| SHARES.contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| {
            let (least, most) = (SHARES.start(), SHARES.end());
            format!("a share from {least}% to {most}% is needed")
        })
}

/// The plan for one vCPU: an endless sequence of periods.
#[derive(Debug, Clone)]
pub struct StealPlan {
    random: ChaCha8Rng,
    /// Means, in seconds.
    away: f64,
    present: f64,
}

/// One period of a [`StealPlan`]: a presence, and then a stall.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StealPeriod {
    /// How long the vCPU is left alone.
    pub present: Duration,
    /// How long it is away after that.
    pub away: Duration,
}

impl StealPlan {
    fn exponential(&mut self, mean: f64) -> Duration {
        // 53 random bits fill the mantissa. The value is never 0, which has no logarithm.
        let bits = (self.random.next_u64() >> 11) + 1;
        let uniform = bits as f64 / (1_u64 << 53) as f64;
        // At most 37 times the mean, which is at most a hundred days.
        Duration::from_secs_f64(-uniform.ln() * mean)
    }
}

impl Iterator for StealPlan {
    type Item = StealPeriod;

    fn next(&mut self) -> Option<StealPeriod> {
        let (present, away) = (self.present, self.away);
        Some(StealPeriod {
            present: self.exponential(present),
            away: self.exponential(away),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steal(seed: u64, mean: Duration, share: f64) -> Steal {
        Steal {
            seed,
            mean,
            share,
            cpus: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let read = "seed=7,mean=2ms,share=12.5%,cpus=0-2,5"
            .parse::<Steal>()
            .unwrap();
        let expected = Steal {
            cpus: Some("0-2,5".parse().unwrap()),
            ..steal(7, Duration::from_millis(2), 0.125)
        };
        assert_eq!(read, expected);
        assert!(read.takes_from(5) && !read.takes_from(3));
        assert!(steal(7, read.mean, 0.2).takes_from(1023));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in [
            "",
            "7",
            "seed=7",
            "seed=7,mean=2ms",
            "seed=7,share=20%",
            "mean=2ms,share=20%",
            "seed=x,mean=2ms,share=20%",
            "seed=-1,mean=2ms,share=20%",
            "seed=18446744073709551616,mean=2ms,share=20%",
            "seed=7,mean=0s,share=20%",
            "seed=7,mean=9us,share=20%",
            "seed=7,mean=2days,share=20%",
            "seed=7,mean=2,share=20%",
            "seed=7,mean=2ms,share=20",
            "seed=7,mean=2ms,share=0%",
            "seed=7,mean=2ms,share=100%",
            "seed=7,mean=2ms,share=-20%",
            "seed=7,mean=2ms,share=nan%",
            "seed=7,mean=2ms,share=%",
            "seed=7,mean=2ms,share=20%,cpus=",
            "seed=7,mean=2ms,share=20%,cpus=3-1",
            "seed=7,mean=2ms,share=20%,share=30%",
            "seed=7,mean=2ms,share=20%,median=1ms",
        ] {
            let error = text.parse::<Steal>().unwrap_err().to_string();
            assert!(
                error.ends_with("'seed=7,mean=2ms,share=20%'"),
                "{text}: {error}"
            );
        }
    }

    /// The plan of a seed must never change: people write down seeds.
    #[test]
    fn a_seed_means_the_same_for_ever() {
        let first = |seed, cpu| {
            let mut plan = steal(seed, Duration::from_millis(2), 0.2).plan(cpu);
            let StealPeriod { present, away } = plan.next().unwrap();
            (present.as_micros(), away.as_micros())
        };
        assert_eq!(first(7, 0), (14_771, 3_567));
        assert_eq!(first(7, 1), (63, 9_409));
        assert_eq!(first(8, 0), (21005, 605));
    }

    #[test]
    fn lengths_are_distributed_exponentially() {
        const COUNT: usize = 20_000;
        let mean = Duration::from_millis(2);
        let mut lengths: Vec<_> = steal(1, mean, 0.5)
            .plan(0)
            .take(COUNT)
            .map(|stretch| stretch.away.as_secs_f64() / mean.as_secs_f64())
            .collect();
        lengths.sort_unstable_by(f64::total_cmp);
        for part in [0.1, 0.5, 0.9, 0.99] {
            let seen = lengths[(part * COUNT as f64) as usize];
            let expected = -(1.0_f64 - part).ln();
            assert!(
                (seen - expected).abs() < 0.08 * expected,
                "{part}: {seen} for {expected}"
            );
        }
    }

    proptest! {
        #[test]
        fn equal_seeds_make_equal_plans(
            seed: u64, other: u64, cpu in 0..1024_u32, next in 0..1024_u32,
        ) {
            prop_assume!(seed != other && cpu != next);
            let plan = |seed, cpu| {
                let steal = steal(seed, Duration::from_millis(2), 0.2);
                steal.plan(cpu).take(20).collect::<Vec<_>>()
            };
            prop_assert_eq!(plan(seed, cpu), plan(seed, cpu));
            prop_assert_ne!(plan(seed, cpu), plan(other, cpu));
            prop_assert_ne!(plan(seed, cpu), plan(seed, next));
        }

        #[test]
        fn the_share_is_stolen_in_the_long_run(
            seed: u64, cpu in 0..1024_u32, micros in 10..1_000_000_u64, percent in 1..=99_u32,
        ) {
            let (mean, share) = (Duration::from_micros(micros), f64::from(percent) / 100.0);
            let stretches: Vec<_> = steal(seed, mean, share).plan(cpu).take(10_000).collect();
            let away: f64 = stretches.iter().map(|stretch| stretch.away.as_secs_f64()).sum();
            let present: f64 = stretches.iter().map(|stretch| stretch.present.as_secs_f64()).sum();
            prop_assert!((away / (away + present) - share).abs() < 0.02);
            // Five standard deviations.
            prop_assert!((away / 10_000.0 / mean.as_secs_f64() - 1.0).abs() < 0.05);
        }

        #[test]
        fn no_plan_panics(seed: u64, micros in 10..86_400_000_000_u64, permille in 1..=990_u32) {
            let steal = steal(seed, Duration::from_micros(micros), f64::from(permille) / 1000.0);
            prop_assert_eq!(steal.plan(0).take(100).count(), 100);
        }
    }
}
