//! The stalls of a run: how long vCPUs were kept out of the guest, and how soon they left it.
//! Computes from what [`crate::control`] has left of the run.

use schemars::JsonSchema;
use serde::Serialize;

use crate::control::RunResult;
use crate::machine::pause_latency::PauseLatency;

/// The stalls of a run.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stalls {
    /// How often a vCPU was kept out of the guest, in all.
    pub count: u64,
    /// Seconds for which one was, in all.
    pub away_seconds: f64,
    /// The part of their time that the stalled vCPUs were away, from the start of the workload to
    /// the end of the run; `null` if no workload started.
    pub share: Option<f64>,
    /// From the request to leave the guest to the confirmation; `null` if all were out of it
    /// already.
    pub latency: Option<Latencies>,
    /// Those that were stalled, in order.
    pub per_vcpu: Vec<Stalled>,
    /// Stalls for whose beginning the run was over too soon, as they were asked for.
    pub missed: Vec<String>,
}

/// Times to a confirmation, in seconds with two digits that mean something.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Latencies {
    /// How many were measured.
    pub count: u64,
    /// The shortest.
    pub min_seconds: f64,
    /// Half of them took no longer.
    pub median_seconds: f64,
    /// 99 in 100 took no longer.
    pub p99_seconds: f64,
    /// The longest.
    pub max_seconds: f64,
}

/// A vCPU that was stalled.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stalled {
    /// Its number.
    pub id: u32,
    /// How often.
    pub count: u64,
    /// For how many seconds in all.
    pub away_seconds: f64,
}

impl Stalls {
    /// The stalls of a run; `None` if there were none and none were missed.
    pub fn of(run_result: &RunResult) -> Option<Self> {
        let per_vcpu: Vec<_> = (0..)
            .zip(&run_result.stall_totals)
            .filter(|(_, absence)| absence.times > 0)
            .map(|(id, absence)| Stalled {
                id,
                count: absence.times,
                away_seconds: absence.total.as_secs_f64(),
            })
            .collect();
        let missed: Vec<_> = run_result
            .stalls
            .missed
            .iter()
            .map(ToString::to_string)
            .collect();
        if per_vcpu.is_empty() && missed.is_empty() {
            return None;
        }
        let away_seconds = per_vcpu.iter().map(|vcpu| vcpu.away_seconds).sum();
        let time = run_result.stalls.time.map(|time| time.as_secs_f64());
        Some(Self {
            count: per_vcpu.iter().map(|vcpu| vcpu.count).sum(),
            away_seconds,
            share: time
                .map(|time| away_seconds / (time * per_vcpu.len() as f64))
                .filter(|share| share.is_finite()),
            latency: run_result.pause_latency.as_ref().map(Latencies::from),
            per_vcpu,
            missed,
        })
    }
}

impl From<&PauseLatency> for Latencies {
    fn from(latency: &PauseLatency) -> Self {
        Self {
            count: latency.count,
            min_seconds: latency.min.as_secs_f64(),
            median_seconds: latency.median.as_secs_f64(),
            p99_seconds: latency.p99.as_secs_f64(),
            max_seconds: latency.max.as_secs_f64(),
        }
    }
}

/// Notes on stalls that were not carried out.
pub(super) fn notes(run_result: &RunResult) -> Vec<String> {
    let stalls = &run_result.stalls;
    if stalls.asked && stalls.time.is_none() {
        return vec![
            "no vCPU was stalled: the guest never said that its workload starts".to_owned(),
        ];
    }
    stalls
        .missed
        .iter()
        .map(|stall| format!("the run was over before --stall '{stall}' began"))
        .collect()
}
