//! A scenario and the machines it boots, one after the other. The script runs on a thread of its
//! own, the machines run in the calling thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use tracing::info;

use crate::confinement::{self, ThreadKind};
use crate::control::script::{BootRequest, Booted, Failure, Script, ScriptInput, Unasked};
use crate::control::socket::Server;
use crate::machine::breakpoints;
use crate::machine::guest::Guest;
use crate::{Config, Error, Outcome, run_attended};

/// A machine that the script asks for, and where to send its operator.
struct Request {
    wanted: BootRequest,
    answer: Sender<Result<Booted, String>>,
}

/// Why a scenario failed, apart from what its machines report.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The script stopped.
    #[error(transparent)]
    Script(#[from] Failure),
    /// A machine that it asked for could not be run.
    #[error(transparent)]
    Machine(#[from] Error),
    /// No thread can be started for it.
    #[error("cannot start a thread for the script")]
    Thread(#[source] std::io::Error),
}

impl ScenarioError {
    /// The exit status of the command.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Script(failure) => failure.exit_status(),
            Self::Machine(error) => error.exit_status(),
            Self::Thread(_) => 3,
        }
    }
}

/// Runs the script in `file`, which can ask for `params`. Its machines are as in `config` where the
/// script says nothing else. What the script appends to the guest's command line comes behind what
/// `config` appends. Clients of `control` drive the same machines. Before the script boots an image
/// that it names itself, `may_boot` says whether it may, or why not, of which the script fails. Each
/// machine that has ended is given to `report`, and each parameter that the script has not asked for
/// to `unasked`.
///
/// # Errors
/// [`ScenarioError`], after all machines have ended. A failure that a machine has reported already
/// is not returned again.
pub fn run(
    file: &Path,
    config: &Config,
    params: BTreeMap<String, String>,
    control: Option<&Server>,
    may_boot: impl Fn(&Path) -> Result<(), String>,
    mut report: impl FnMut(Outcome),
    unasked: impl FnMut(&Unasked),
) -> Result<(), ScenarioError> {
    let script = Script::read(file)?;
    let config = &Config {
        script: Some(script.input()),
        ..config.clone()
    };
    let (requests, wanted) = mpsc::channel::<Request>();
    let given = ScriptInput {
        machine: config.guest.is_some(),
        params,
        console: config.console,
        raw_console: config.raw_console,
        interrupted: Arc::clone(&config.interrupted),
    };
    breakpoints::check_while_allowed();
    let performance = thread::Builder::new()
        .name("script".to_owned())
        .spawn(move || {
            let boot = move |wanted| {
                let (answer, operator) = mpsc::channel();
                // The calling thread serves the requests, and joins this one before it drops them.
                let gone = |_| "the VMM is on its way out".to_owned();
                let request = Request { wanted, answer };
                requests.send(request).map_err(|_| gone(()))?;
                operator.recv().map_err(|_| gone(()))?
            };
            confinement::enter(ThreadKind::Script);
            script.run(Box::new(boot), given)
        })
        .map_err(ScenarioError::Thread)?;

    let mut refused = None;
    let mut told = false;
    for Request { wanted, answer } in wanted {
        let named = wanted.guest.iter().chain(&wanted.initrd);
        if let Some(why) = named.into_iter().find_map(|file| may_boot(file).err()) {
            // No machine tells it.
            told = false;
            let _ = answer.send(Err(why));
            continue;
        }
        info!("the script boots a machine");
        let handed = answer.clone();
        let outcome = run_attended(&with(config, wanted), control, |operator| {
            let (standstill, goes_on) = mpsc::channel();
            let operator = Arc::clone(operator);
            // Fails if the script has ended, and then the machine runs without it.
            let _ = handed.send(Ok(Booted {
                operator,
                standstill,
            }));
            // The script drops its end when the vCPUs may enter the guest.
            let _ = goes_on.recv();
        });
        match outcome {
            Ok(outcome) => {
                told = outcome.report.exit_status != 0;
                report(outcome);
            }
            Err(error) => {
                let _ = answer.send(Err(error.to_string()));
                refused.get_or_insert(error);
            }
        }
    }
    let performed = performance.join();
    if let Ok(performed) = &performed {
        performed.unasked.iter().for_each(unasked);
    }
    match (performed.map(|it| it.result), refused) {
        (_, Some(error)) => Err(error.into()),
        (Ok(Err(failure)), None) if !told => Err(failure.into()),
        (Ok(_), None) => Ok(()),
        // The panic hook has said where the thread panicked.
        (Err(panic), None) => std::panic::resume_unwind(panic),
    }
}

fn with(config: &Config, wanted: BootRequest) -> Config {
    let mut config = config.clone();
    config.guest = wanted.guest.map(Guest::from).or(config.guest);
    config.vcpus = wanted.vcpus.unwrap_or(config.vcpus);
    config.memory = wanted.memory.or(config.memory);
    config.initrd = wanted.initrd.or(config.initrd);
    if let Some(append) = wanted.append {
        // The guest takes the last of several words with one key.
        config.append = format!("{} {append}", config.append);
    }
    config
}
