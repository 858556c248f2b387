//! Samples of all counters of a machine, and the window between two of them. The guest says by its
//! doorbell when its workload begins and ends.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::binary::{Field, Schema, StatsError, StatsFile};
use super::sources::{Source as ProvenSource, Trials, is_proven, left_out};
use super::tracepoints::events::EXIT;
use super::tracepoints::{Counters, Tracepoints};
use crate::lab::Lab;
use crate::machine::Machine;
use crate::machine::exit_counts::{ExitCounters, ExitCounts};
use crate::machine::limits::{self, LimitError};
use crate::machine::message::Message;

/// All counters at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// Exits to userspace, by vCPU.
    pub exits: Vec<ExitCounts>,
    /// KVM's statistics, by vCPU; empty if the host has none.
    pub kvm: Vec<Vec<u64>>,
    /// Hits of tracepoints, by vCPU; empty if none are counted.
    pub tracepoints: Vec<Vec<u64>>,
    /// IPIs that the guest says it has sent, by transport.
    pub ipis: Vec<(String, u64)>,
}

/// KVM's statistics of a machine.
#[derive(Debug)]
struct KvmStats(Vec<StatsFile>);

impl KvmStats {
    fn open(machine: &Machine) -> Result<Self, StatsError> {
        let mut vcpus: Vec<StatsFile> = Vec::with_capacity(machine.vcpus.len());
        for vcpu in &machine.vcpus {
            let source = StatsFile::open(vcpu.fd(), vcpus.first())?;
            vcpus.push(source);
        }
        Ok(Self(vcpus))
    }

    fn sample(&self) -> Result<Vec<Vec<u64>>, StatsError> {
        self.0.iter().map(StatsFile::sample).collect()
    }
}

/// Why a machine's tracepoints are not counted.
#[derive(Debug, thiserror::Error)]
pub enum TracepointError {
    /// The limit on open files is too low.
    #[error("cannot count tracepoints: {0}")]
    Files(#[from] LimitError),
    /// The kernel refuses to count.
    #[error("cannot count tracepoints on the threads of the vCPUs: {0}")]
    Count(#[source] io::Error),
}

/// Tracepoints as they are counted on the threads of a machine.
#[derive(Debug)]
struct ThreadCounters {
    tracepoints: Tracepoints,
    vcpus: Vec<Counters>,
}

impl ThreadCounters {
    fn sample(&self) -> Vec<Vec<u64>> {
        // A counter that is open can be read.
        let own = |counters: &Counters| counters.sample().unwrap_or_default();
        self.vcpus.iter().map(own).collect()
    }
}

#[derive(Debug, Clone, Default)]
struct Marks {
    started: Option<Sample>,
    warmed_up: bool,
    finished: Option<Sample>,
}

/// Samples the counters of one machine.
#[derive(Debug)]
pub struct Meter {
    kvm: Result<KvmStats, StatsError>,
    /// Which sources can be believed, once they have been tried; `None` if they are not.
    trials: Option<Trials>,
    counting: OnceLock<ThreadCounters>,
    exit_counters: Vec<Arc<ExitCounters>>,
    lab: Lab,
    marks: Mutex<Marks>,
    born: Sample,
}

impl Meter {
    /// A meter for `machine`, which has not run yet. It reports those of KVM's statistics that can
    /// be believed according to `trials`.
    pub fn new(machine: &Machine, lab: Lab, trials: Option<Trials>) -> Self {
        let exit_counters: Vec<_> = machine
            .vcpus
            .iter()
            .map(|vcpu| Arc::clone(vcpu.exit_counters()))
            .collect();
        let kvm = KvmStats::open(machine);
        let born = sample(&kvm, None, &exit_counters, &lab);
        Self {
            kvm,
            trials,
            counting: OnceLock::new(),
            exit_counters,
            lab,
            marks: Mutex::default(),
            born,
        }
    }

    /// Also counts `tracepoints` from now on, on the threads of the vCPUs, which must not have
    /// entered the guest yet.
    ///
    /// # Errors
    /// The host refuses it for so many threads. Everything else is counted all the same.
    pub fn count(
        &self,
        tracepoints: &Tracepoints,
        threads: impl Iterator<Item = libc::pid_t>,
    ) -> Result<(), TracepointError> {
        let vcpus = u32::try_from(self.exit_counters.len()).unwrap_or(u32::MAX);
        limits::check(vcpus, tracepoints.len() as u64)?;
        let counters = threads.map(|thread| tracepoints.count(thread));
        let counting = ThreadCounters {
            tracepoints: tracepoints.clone(),
            vcpus: counters
                .collect::<io::Result<_>>()
                .map_err(TracepointError::Count)?,
        };
        self.counting.get_or_init(|| counting);
        Ok(())
    }

    /// Takes a sample when the guest says that the workload begins, that its warm-up is over, or
    /// that it ends. The vCPU that says so must stay out of the guest meanwhile. Only the first
    /// message of each kind counts.
    pub fn on_message(&self, message: Message) {
        let mut marks = self.marks();
        match message {
            Message::WorkloadStarted if marks.started.is_none() => {
                marks.started = Some(self.sample());
            }
            Message::WarmedUp if !marks.warmed_up && marks.finished.is_none() => {
                marks.warmed_up = true;
                marks.started = Some(self.sample());
            }
            Message::WorkloadFinished if marks.started.is_some() && marks.finished.is_none() => {
                marks.finished = Some(self.sample());
            }
            _ => {}
        }
    }

    /// Exits the guest has caused so far, on all vCPUs.
    pub fn guest_exits(&self) -> u64 {
        self.exit_counters.iter().fold(0, |sum, exit_counters| {
            sum.wrapping_add(exit_counters.caused_by_guest())
        })
    }

    /// Exits to KVM so far, on all vCPUs: those that KVM deals with itself, too. 0 where it does not
    /// count them.
    pub fn kvm_exits(&self) -> u64 {
        let Ok(kvm) = &self.kvm else { return 0 };
        let Some(field) = self.vcpu_field("exits") else {
            return 0;
        };
        let samples = kvm.sample().unwrap_or_default();
        let exits = samples.iter().flat_map(|sample| field.of(sample));
        exits.fold(0, |sum, exits| sum.wrapping_add(*exits))
    }

    /// KVM's statistic `name` of vCPUs, if there is one, whether it can be believed or not.
    pub fn vcpu_field(&self, name: &str) -> Option<&Field> {
        let first = self.kvm.as_ref().ok()?.0.first()?;
        first.schema().field(name)
    }

    /// Which sources can be believed, once that has been tried.
    pub fn sources(&self) -> &[ProvenSource] {
        let trials = self.trials.as_ref();
        trials.map_or(&[], |trials| &trials.result().list)
    }

    /// The same, if it is known by now.
    pub fn known_sources(&self) -> Option<&[ProvenSource]> {
        match &self.trials {
            None => Some(&[]),
            Some(trials) => trials.known().map(|sources| &sources.list[..]),
        }
    }

    /// Why there are no statistics of KVM's, if there are none.
    pub fn blind(&self) -> Option<&StatsError> {
        self.kvm.as_ref().err()
    }

    /// The window to report on: the workload as far as it got, or the whole run if none began.
    pub fn window(&self) -> Window {
        let Marks {
            started, finished, ..
        } = self.marks().clone();
        let complete = finished.is_some();
        let end = finished.unwrap_or_else(|| self.sample());
        let first = self.kvm.as_ref().ok().and_then(|kvm| kvm.0.first());
        Window {
            boot: started.as_ref().map(|start| start.at - self.born.at),
            workload: started.is_some(),
            complete,
            start: started.unwrap_or_else(|| self.born.clone()),
            end,
            vcpu_schema: first.map(|source| Arc::clone(source.schema())),
            sources: self.sources().into(),
            tracepoints: self
                .counting
                .get()
                .map(|counting| counting.tracepoints.clone()),
        }
    }

    /// Samples all counters.
    pub fn sample(&self) -> Sample {
        sample(
            &self.kvm,
            self.counting.get(),
            &self.exit_counters,
            &self.lab,
        )
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sample(
    kvm: &Result<KvmStats, StatsError>,
    counting: Option<&ThreadCounters>,
    exit_counters: &[Arc<ExitCounters>],
    lab: &Lab,
) -> Sample {
    let vcpus = kvm
        .as_ref()
        .ok()
        .and_then(|kvm| kvm.sample().ok())
        .unwrap_or_default();
    Sample {
        at: Instant::now(),
        exits: exit_counters
            .iter()
            .map(|exit_counters| exit_counters.counts())
            .collect(),
        kvm: vcpus,
        tracepoints: counting.map(ThreadCounters::sample).unwrap_or_default(),
        ipis: (lab.counts().by_transport(lab.manifest()))
            .map(|(transport, sent)| (transport.to_owned(), sent))
            .collect(),
    }
}

/// The time between two samples.
#[derive(Debug)]
pub struct Window {
    /// Time from the creation of the meter, just before the first entry into the guest, to the
    /// start of the workload, if there was one.
    pub boot: Option<Duration>,
    /// Whether it begins with the workload. Otherwise it begins with the machine.
    pub workload: bool,
    /// Whether it ends with the workload. Otherwise it ends with the run.
    pub complete: bool,
    start: Sample,
    end: Sample,
    vcpu_schema: Option<Arc<Schema>>,
    sources: Arc<[ProvenSource]>,
    tracepoints: Option<Tracepoints>,
}

/// One statistic over a window: one number, or one per bucket.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Value {
    /// A count, or a momentary value at the end of the window.
    One(u64),
    /// A histogram.
    Many(Vec<u64>),
}

impl Window {
    /// A window in which nothing happened.
    pub fn empty() -> Self {
        let sample = Sample {
            at: Instant::now(),
            exits: Vec::new(),
            kvm: Vec::new(),
            tracepoints: Vec::new(),
            ipis: Vec::new(),
        };
        Self {
            boot: None,
            workload: false,
            complete: false,
            start: sample.clone(),
            end: sample,
            vcpu_schema: None,
            sources: Arc::default(),
            tracepoints: None,
        }
    }

    /// When the machine entered the guest for the first time.
    pub fn first_entry(&self) -> Instant {
        self.start.at - self.boot.unwrap_or_default()
    }

    /// When it ended.
    pub fn ended(&self) -> Instant {
        self.end.at
    }

    /// Its length.
    pub fn length(&self) -> Duration {
        self.end.at - self.start.at
    }

    /// IPIs that the guest says it sent in this window.
    pub fn ipis(&self) -> u64 {
        self.sent()
            .fold(0_u64, |sum, (_, sent)| sum.wrapping_add(sent))
    }

    /// The same by transport.
    pub fn sent(&self) -> impl Iterator<Item = (&str, u64)> {
        let samples = self.end.ipis.iter().zip(&self.start.ipis);
        samples.map(|((transport, end), (_, start))| (&**transport, end.wrapping_sub(*start)))
    }

    /// Exits of vCPU `id` to userspace.
    pub fn exits(&self, id: usize) -> ExitCounts {
        let of = |sample: &Sample| sample.exits.get(id).copied().unwrap_or_default();
        let (start, end) = (of(&self.start), of(&self.end));
        std::array::from_fn(|reason| end[reason].wrapping_sub(start[reason]))
    }

    /// KVM's statistics of vCPU `id`, only those that can be believed on this host.
    pub fn kvm(&self, id: usize) -> Vec<(&str, Value)> {
        let none = Vec::new();
        let mut all = difference(
            self.vcpu_schema.as_deref(),
            self.start.kvm.get(id).unwrap_or(&none),
            self.end.kvm.get(id).unwrap_or(&none),
        );
        all.retain(|(name, _)| is_proven(&self.sources, name));
        all
    }

    /// The statistics of KVM that are left out because they failed the trial, and why.
    pub fn left_out(&self) -> impl Iterator<Item = (&str, &str)> {
        left_out(&self.sources)
    }

    /// Whether KVM's statistic `name` of vCPUs only grows.
    pub fn vcpu_grows(&self, name: &str) -> bool {
        grows(self.vcpu_schema.as_deref(), name)
    }

    /// KVM's statistics of vCPU `id` that only grow and are one number each. Those that cannot be
    /// believed are among them: the caller has to leave them out after it has computed with them.
    pub fn counted(&self, id: usize) -> impl Iterator<Item = (&str, u64)> {
        let schema = self.vcpu_schema.as_deref();
        let fields = schema.map_or(&[][..], |schema| &schema.fields);
        fields
            .iter()
            .filter(|field| field.grows)
            .filter_map(move |field| Some((field.name.as_str(), self.kvm_count(id, &field.name)?)))
    }

    /// How often the thread of vCPU `id` hit each tracepoint that was counted, by tracepoint and
    /// event. Exits for reasons without a count of their own are `other`.
    pub fn tracepoints(&self, id: usize) -> Vec<(String, u64)> {
        let Some(tracepoints) = &self.tracepoints else {
            return Vec::new();
        };
        let of = |sample: &Sample, number: usize| {
            let counts = sample.tracepoints.get(id)?;
            counts.get(number).copied()
        };
        let mut counts = Vec::with_capacity(tracepoints.len() + 1);
        let mut other = None;
        for (number, event) in tracepoints.events().enumerate() {
            // Tracepoints are counted from the first entry on, and are not in the meter's first
            // sample.
            let start = of(&self.start, number).unwrap_or(0);
            let count = of(&self.end, number).map_or(0, |end| end.wrapping_sub(start));
            match (event.tracepoint, event.what, &mut other) {
                (EXIT, None, other) => *other = Some(count),
                (EXIT, Some(_), Some(other)) => *other = other.saturating_sub(count),
                _ => {}
            }
            counts.push((event.label(), count));
        }
        counts.extend(other.map(|other| (format!("{EXIT} other"), other)));
        counts
    }

    /// KVM's statistic `name` of vCPU `id`, if it is a single number.
    pub fn kvm_count(&self, id: usize, name: &str) -> Option<u64> {
        let field = self.vcpu_schema.as_deref()?.field(name)?;
        let [end] = field.of(self.end.kvm.get(id)?) else {
            return None;
        };
        let [start] = field.of(self.start.kvm.get(id)?) else {
            return None;
        };
        Some(end.wrapping_sub(*start))
    }
}

fn grows(schema: Option<&Schema>, name: &str) -> bool {
    schema
        .and_then(|schema| schema.field(name))
        .is_some_and(|field| field.grows)
}

fn difference<'a>(schema: Option<&'a Schema>, start: &[u64], end: &[u64]) -> Vec<(&'a str, Value)> {
    let fields = schema.map_or(&[][..], |schema| &schema.fields);
    fields
        .iter()
        .map(|field| {
            let mut values = field.of(end).to_vec();
            if field.grows {
                for (value, before) in values.iter_mut().zip(field.of(start)) {
                    *value = value.wrapping_sub(*before);
                }
            }
            let value = match values[..] {
                [one] => Value::One(one),
                _ => Value::Many(values),
            };
            (field.name.as_str(), value)
        })
        .collect()
}
