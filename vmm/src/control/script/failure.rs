//! How an error of the interpreter becomes a failure of the script. Errors of the machine pass
//! through the interpreter as values, and are turned back into errors here.

use std::io;
use std::path::Path;

use rhai::{Dynamic, Engine, EvalAltResult, Position};

use crate::control::operator::OperatorError;
use crate::control::script_failure::{Failure, FailureKind};
use crate::lab::oracles::NoSuchOracle;
use crate::machine::limits;

impl Failure {
    /// The script cannot be read.
    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Self {
        Self {
            kind: match limits::are_reached(error) {
                true => FailureKind::Host,
                false => FailureKind::Bad,
            },
            file: file.to_owned(),
            place: None,
            message: format!("cannot read the script: {error}"),
        }
    }

    /// The failure for an error of the interpreter, of the script in `file`.
    pub(super) fn of(file: &Path, error: &EvalAltResult) -> Self {
        let mut error = error;
        let mut place = error.position();
        // A failure inside a function is reported with the position inside that function.
        while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) = error {
            error = inner;
            if !error.position().is_none() {
                place = error.position();
            }
        }
        let Raised { kind, message } = Raised::of(error);
        Self {
            kind,
            file: file.to_owned(),
            place: known(place),
            message,
        }
    }

    /// The exit status of the command, unless the machine's own result decides it.
    pub fn exit_status(&self) -> u8 {
        match self.kind {
            FailureKind::Expectation | FailureKind::Over => 1,
            FailureKind::Bad => 2,
            FailureKind::Host => 3,
            FailureKind::Stuck => 5,
        }
    }
}

fn known(place: Position) -> Option<(usize, usize)> {
    Some((place.line()?, place.position().unwrap_or(1)))
}

/// A failure as a value in the interpreter. A script that catches it can print it.
#[derive(Debug, Clone)]
struct Raised {
    kind: FailureKind,
    message: String,
}

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Raised>("Failure");
    engine.register_fn("to_string", |raised: &mut Raised| raised.message.clone());
    engine.register_fn("to_debug", |raised: &mut Raised| raised.message.clone());
}

impl Raised {
    fn of(error: &EvalAltResult) -> Self {
        let (kind, message) = match error {
            EvalAltResult::ErrorRuntime(value, _) => {
                if let Some(raised) = value.clone().try_cast::<Self>() {
                    return raised;
                }
                // The script's own `throw`.
                (FailureKind::Expectation, value.to_string())
            }
            EvalAltResult::ErrorTerminated(why, _) => {
                return why.clone().try_cast().unwrap_or_else(|| Self {
                    kind: FailureKind::Stuck,
                    message: why.to_string(),
                });
            }
            EvalAltResult::ErrorTooManyOperations(_) => (
                FailureKind::Stuck,
                "the script takes more steps than any scenario needs; is it endless?".to_owned(),
            ),
            other => (FailureKind::Bad, without_place(other)),
        };
        Self { kind, message }
    }
}

/// The interpreter's message without the position, which is shown before the message.
fn without_place(error: &EvalAltResult) -> String {
    let mut error = error.to_string();
    if let Some(place) = error.rfind(" (line ") {
        error.truncate(place);
    }
    error
}

fn throw(kind: FailureKind, message: String) -> Box<EvalAltResult> {
    let raised = Dynamic::from(Raised { kind, message });
    EvalAltResult::ErrorRuntime(raised, Position::NONE).into()
}

/// The value by which the interpreter stops a script whose machine was cut short.
pub(super) fn over(why: &str) -> Dynamic {
    let message = OperatorError::Over(why.to_owned()).to_string();
    let kind = FailureKind::Over;
    Dynamic::from(Raised { kind, message })
}

/// Stops the script because of what it asks for.
pub(super) fn bad(message: String) -> Box<EvalAltResult> {
    throw(FailureKind::Bad, message)
}

/// Stops the script because something is not as it expected.
pub(super) fn unmet(message: String) -> Box<EvalAltResult> {
    throw(FailureKind::Expectation, message)
}

/// Stops the script because a verb of the operator failed.
impl From<OperatorError> for Box<EvalAltResult> {
    fn from(error: OperatorError) -> Self {
        let kind = match &error {
            OperatorError::Over(_) => FailureKind::Over,
            OperatorError::TimedOut { .. } | OperatorError::GivenUp(_) => FailureKind::Stuck,
            OperatorError::Refused { .. }
            | OperatorError::NoCall { .. }
            | OperatorError::ToNobody(_)
            | OperatorError::WireNotEmpty { .. } => FailureKind::Expectation,
            _ => FailureKind::Bad,
        };
        throw(kind, error.to_string())
    }
}

/// Stops the script because there is no such oracle.
impl From<NoSuchOracle> for Box<EvalAltResult> {
    fn from(error: NoSuchOracle) -> Self {
        bad(error.to_string())
    }
}

/// Converts a number of the script to a `u32`. `what` names it in the error, such as "CPU".
pub(super) fn small(what: &str, number: i64) -> Result<u32, Box<EvalAltResult>> {
    u32::try_from(number).map_err(|_| bad(format!("{number} is no {what}")))
}
