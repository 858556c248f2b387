//! A scenario and the machines it boots, one after the other: the script runs on a thread of its
//! own, the machines in the calling one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use crate::control::operator::Operator;
use crate::control::script::{BootRequest, Failure, Script, ScriptInput};
use crate::control::socket::Server;
use crate::machine::guest::Guest;
use crate::{Config, Error, Outcome, run_attended};

/// A machine that the script wants, and where to hand its operator.
struct Request {
    wanted: BootRequest,
    answer: Sender<Result<Arc<Operator>, String>>,
}

/// Why a scenario did not come to a good end, other than by what its machines report.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The script stopped.
    #[error(transparent)]
    Script(#[from] Failure),
    /// A machine that it wanted was not to be had.
    #[error(transparent)]
    Machine(#[from] Error),
    /// There is no thread for it.
    #[error("cannot start a thread for the script")]
    Thread(#[source] std::io::Error),
}

impl ScenarioError {
    /// The status with which the command ends.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Script(failure) => failure.exit_status(),
            Self::Machine(error) => error.exit_status(),
            Self::Thread(_) => 3,
        }
    }
}

/// Runs the script in `file`, which can ask for `params`. A machine is as `config` has it where the
/// script says nothing else; what it wants appended to the guest's command line comes behind what
/// `config` does. Clients of `control` drive the same machines. Each machine that has ended is
/// given to `report`.
///
/// # Errors
/// [`ScenarioError`], after all machines have ended. A failure that is in the report of a machine
/// already is not told again.
pub fn run(
    file: &Path,
    config: &Config,
    params: BTreeMap<String, String>,
    control: Option<&Server>,
    mut report: impl FnMut(Outcome),
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
    };
    let performance = thread::Builder::new()
        .name("script".to_owned())
        .spawn(move || {
            let boot = move |wanted| {
                let (answer, operator) = mpsc::channel();
                // Both ends live as long as the thread that serves them, which outlives this one.
                let gone = |_| "the VMM is on its way out".to_owned();
                let request = Request { wanted, answer };
                requests.send(request).map_err(|_| gone(()))?;
                operator.recv().map_err(|_| gone(()))?
            };
            script.run(Box::new(boot), given)
        })
        .map_err(ScenarioError::Thread)?;

    let mut refused = None;
    let mut told = false;
    for Request { wanted, answer } in wanted {
        let handed = answer.clone();
        let outcome = run_attended(&with(config, wanted), control, |operator| {
            // If the script has gone, it has left the machine to itself.
            let _ = handed.send(Ok(Arc::clone(operator)));
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
    match (performance.join(), refused) {
        (_, Some(error)) => Err(error.into()),
        (Ok(Err(failure)), None) if !told => Err(failure.into()),
        (Ok(_), None) => Ok(()),
        // The thread says by itself where it panicked; there is nobody else to blame.
        (Err(panic), None) => std::panic::resume_unwind(panic),
    }
}

fn with(config: &Config, wanted: BootRequest) -> Config {
    let mut config = config.clone();
    config.guest = wanted.guest.map(Guest::from).or(config.guest);
    config.vcpus = wanted.vcpus.unwrap_or(config.vcpus);
    config.memory = wanted.memory.or(config.memory);
    if let Some(append) = wanted.append {
        // The guest takes the last of several words with one key.
        config.append = format!("{} {append}", config.append);
    }
    config
}
