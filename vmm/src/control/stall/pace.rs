//! Keeps the share of stolen time on a host whose timing is not exact: if a vCPU was away or
//! present for longer than planned, its next presences are made longer or shorter. Reads no clock.

use std::time::Duration;

use super::steal::{Steal, StealPeriod};

/// Least part of a planned presence that is left, so that a vCPU makes progress whatever has to be
/// compensated.
const LEAST: f64 = 0.25;
/// Most stalls of mean length that are compensated. A host that stood still for a minute should not
/// change the plan for an hour.
const MEMORY: f64 = 100.0;

/// The account of one vCPU.
#[derive(Debug, Clone)]
pub struct Pace {
    presence_per_absence: f64,
    /// Seconds by which presences still have to exceed the plan; negative if they have exceeded it
    /// already.
    owed: f64,
    most: f64,
}

impl Pace {
    /// An account with nothing to compensate.
    pub fn new(steal: &Steal) -> Self {
        let presence_per_absence = steal.presence_per_absence();
        Self {
            presence_per_absence,
            owed: 0.0,
            most: MEMORY * steal.mean.as_secs_f64() * presence_per_absence.max(1.0),
        }
    }

    /// How long the vCPU is to be left alone in the period `planned`.
    pub fn presence(&self, planned: &StealPeriod) -> Duration {
        let planned = planned.present.as_secs_f64();
        Duration::from_secs_f64((planned + self.owed).max(planned * LEAST))
    }

    /// Enters how a period went that was planned as `planned`.
    pub fn enter(&mut self, planned: &StealPeriod, went: &StealPeriod) {
        let longer = |went: Duration, planned: Duration| went.as_secs_f64() - planned.as_secs_f64();
        self.owed += longer(went.away, planned.away) * self.presence_per_absence
            - longer(went.present, planned.present);
        self.owed = self.owed.clamp(-self.most, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share that is away if every departure and every return take this long.
    fn share(steal: &Steal, departure: Duration, back: Duration) -> f64 {
        let mut pace = Pace::new(steal);
        let [mut present, mut away] = [Duration::ZERO; 2];
        for planned in steal.plan(0).take(20_000) {
            let went = StealPeriod {
                present: pace.presence(&planned) + departure,
                away: planned.away + back,
            };
            pace.enter(&planned, &went);
            present += went.present;
            away += went.away;
        }
        away.as_secs_f64() / (away + present).as_secs_f64()
    }

    #[test]
    fn a_slow_host_does_not_change_the_share() {
        let steal: Steal = "seed=7,mean=2ms,share=20%".parse().unwrap();
        for (departure, back) in [(0, 0), (2_000, 0), (0, 1_000), (3_000, 3_000), (0, 20_000)] {
            let seen = share(
                &steal,
                Duration::from_micros(departure),
                Duration::from_micros(back),
            );
            assert!((seen - 0.2).abs() < 0.01, "{departure} {back}: {seen}");
        }
    }

    #[test]
    fn a_vcpu_gets_on_however_slow_the_host() {
        let steal: Steal = "seed=7,mean=2ms,share=20%".parse().unwrap();
        let mut pace = Pace::new(&steal);
        let planned = StealPeriod {
            present: Duration::from_millis(8),
            away: Duration::from_millis(2),
        };
        let late = StealPeriod {
            present: Duration::from_secs(60),
            ..planned
        };
        pace.enter(&planned, &late);
        assert_eq!(pace.presence(&planned), Duration::from_millis(2));
        // One minute does not cost it hours either.
        for _ in 0..1_000 {
            let went = StealPeriod {
                present: pace.presence(&planned),
                ..planned
            };
            pace.enter(&planned, &went);
        }
        assert_eq!(pace.presence(&planned), Duration::from_millis(8));
    }
}
