//! The sources of a host while they are tried. A trial can go on beside a machine that is built and
//! run: whoever is about to show a figure waits here until it is known whether it can be believed.

use std::fmt;
use std::panic;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use super::Sources;
use crate::stats::tracepoints::Tracepoints;

/// Sources that have been tried, or are being tried.
#[derive(Clone)]
pub struct Trials(Arc<State>);

struct State {
    result: OnceLock<Arc<Sources>>,
    trial: Mutex<Option<JoinHandle<Sources>>>,
}

impl Trials {
    /// Begins to try KVM's statistics, as [`Sources::prove_statistics`] does, on a thread of its
    /// own.
    pub fn begin() -> Self {
        let thread = thread::Builder::new().name("trial".to_owned());
        match thread.spawn(Sources::prove_statistics) {
            Ok(trial) => Self(Arc::new(State {
                result: OnceLock::new(),
                trial: Mutex::new(Some(trial)),
            })),
            // Without a thread it takes its time here.
            Err(_) => Arc::new(Sources::prove_statistics()).into(),
        }
    }

    /// The sources, as soon as all have been tried.
    pub fn result(&self) -> &Arc<Sources> {
        self.0.result.get_or_init(|| {
            let trial = self.0.take().expect("taken only to have the result");
            Arc::new(trial.join().unwrap_or_else(|why| panic::resume_unwind(why)))
        })
    }

    /// The sources, if all have been tried by now.
    pub fn known(&self) -> Option<&Arc<Sources>> {
        let is_over = || self.0.trial().as_ref().is_some_and(JoinHandle::is_finished);
        (self.0.result.get().is_some() || is_over()).then(|| self.result())
    }

    /// The tracepoints that can be believed; none where only KVM's statistics are tried.
    pub fn tracepoints(&self) -> Option<&Tracepoints> {
        // A trial that is not over was begun by `Trials::begin`, and tries no tracepoints.
        self.0.result.get().map(|sources| &sources.tracepoints)
    }
}

impl State {
    fn trial(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<Sources>>> {
        self.trial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<JoinHandle<Sources>> {
        self.trial().take()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Nobody wants the result. The thread ends soon; it must not outlive what began it.
        if let Some(trial) = self.take() {
            let _ = trial.join();
        }
    }
}

impl From<Arc<Sources>> for Trials {
    fn from(sources: Arc<Sources>) -> Self {
        Self(Arc::new(State {
            result: OnceLock::from(sources),
            trial: Mutex::new(None),
        }))
    }
}

impl From<Sources> for Trials {
    fn from(sources: Sources) -> Self {
        Arc::new(sources).into()
    }
}

impl fmt::Debug for Trials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trials").field(&self.0.result.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::sources::Kvm;

    fn sources() -> Sources {
        Sources {
            list: Vec::new(),
            kvm: Kvm::Svm,
            tracepoints: Tracepoints::default(),
        }
    }

    #[test]
    fn the_result_is_waited_for_and_the_same_for_all() {
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let trial = thread::spawn(move || {
            gate.recv().unwrap();
            sources()
        });
        let trials = Trials(Arc::new(State {
            result: OnceLock::new(),
            trial: Mutex::new(Some(trial)),
        }));
        assert!(trials.known().is_none(), "nothing is known before its end");
        assert!(trials.tracepoints().is_none());
        let other = trials.clone();
        let waiting = thread::spawn(move || Arc::clone(other.result()));
        go.send(()).unwrap();
        let result = Arc::clone(trials.result());
        assert_eq!(result.kvm, Kvm::Svm);
        assert!(Arc::ptr_eq(&result, &waiting.join().unwrap()));
        assert!(Arc::ptr_eq(trials.known().unwrap(), &result));
    }

    #[test]
    fn what_was_tried_before_is_known_at_once() {
        let trials = Trials::from(sources());
        assert!(trials.known().is_some());
        assert!(trials.tracepoints().is_some());
    }

    #[test]
    fn a_trial_beside_comes_to_the_same() {
        let names = |sources: &Sources| {
            let names = sources.list.iter().map(|it| it.name.clone());
            names.collect::<Vec<_>>()
        };
        let beside = Trials::begin();
        assert_eq!(names(beside.result()), names(&Sources::prove_statistics()));
    }
}
