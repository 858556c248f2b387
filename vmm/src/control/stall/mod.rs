//! Stalls that are planned before a run: which vCPU is kept out of the guest, when and for how
//! long. What is asked for is plain data, checked before there is a machine; `driver` carries it
//! out.

mod driver;
mod once;
mod pace;
mod settings;
mod steal;

use std::time::Duration;

pub(super) use driver::{StallDriver, WorkloadStart};
pub use once::PlannedStall;
pub use settings::StallError;
pub use steal::{Steal, StealPeriod, StealPlan};

/// All planned stalls of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stalls {
    /// Single stalls. They may overlap, also on one vCPU.
    pub once: Vec<PlannedStall>,
    /// Random stalls, again and again.
    pub steal: Option<Steal>,
}

/// A vCPU that is to be stalled and does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: there is no vCPU {cpu}; this machine has {} (--vcpus {vcpus})", all(*vcpus))]
pub struct NoSuchVcpu {
    /// The option, as it was given.
    pub option: String,
    /// The vCPU.
    pub cpu: u32,
    /// How many vCPUs there are.
    pub vcpus: u32,
}

fn all(vcpus: u32) -> String {
    match vcpus {
        1 => "only vCPU 0".to_owned(),
        _ => format!("vCPUs 0 to {}", vcpus.saturating_sub(1)),
    }
}

impl Stalls {
    /// Checks that all vCPUs that are to be stalled exist in a machine of `vcpus` vCPUs.
    ///
    /// # Errors
    /// [`NoSuchVcpu`] names the first that does not exist.
    pub fn check(&self, vcpus: u32) -> Result<(), NoSuchVcpu> {
        let once = self
            .once
            .iter()
            .map(|stall| (format!("--stall '{stall}'"), stall.cpu));
        let cpus = self.steal.iter().filter_map(|steal| steal.cpus.as_ref());
        let steal = cpus.flat_map(|cpus| {
            cpus.iter()
                .map(move |cpu| (format!("--steal 'cpus={cpus}'"), cpu))
        });
        match once.chain(steal).find(|(_, cpu)| *cpu >= vcpus) {
            Some((option, cpu)) => Err(NoSuchVcpu { option, cpu, vcpus }),
            None => Ok(()),
        }
    }
}

/// What was carried out of [`Stalls`] by the end of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StallSummary {
    /// Whether any stalls were planned.
    pub asked: bool,
    /// Time from the start of the workload to the end of the run; `None` if no workload started.
    pub time: Option<Duration>,
    /// The single stalls that had not begun when the run ended.
    pub missed: Vec<PlannedStall>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpus_that_do_not_exist_are_named() {
        let mut stalls = Stalls::default();
        assert_eq!(stalls.check(1), Ok(()));
        stalls.once.push("cpu=3,at=0s,for=1ms".parse().unwrap());
        assert_eq!(stalls.check(4), Ok(()));
        assert_eq!(
            stalls.check(3).unwrap_err().to_string(),
            "--stall 'cpu=3,at=0s,for=1ms': there is no vCPU 3; this machine has vCPUs 0 to 2 \
             (--vcpus 3)"
        );
        stalls.once.clear();
        stalls.steal = Some("seed=1,mean=1ms,share=5%,cpus=0-2,7".parse().unwrap());
        assert_eq!(stalls.check(8), Ok(()));
        let error = stalls.check(1).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "--steal 'cpus=0-2,7': there is no vCPU 1; this machine has only vCPU 0"
            ),
            "{error}"
        );
    }
}
