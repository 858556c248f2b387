//! A machine that runs while its owner does something else: on a thread of its own, with an
//! operator to drive it by and an outcome to wait for.

use std::panic;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::control::operator::Operator;
use crate::{Config, Error, Outcome, run_attended};

/// A running machine. It ends when its guest does, when one of its limits is reached, or when the
/// operator ends it; [`Running::wait`] returns the outcome. Dropping it ends the machine at once.
#[derive(Debug)]
#[must_use = "a machine that nobody keeps ends at once"]
pub struct Running {
    operator: Arc<Operator>,
    /// `None` once it has been waited for.
    thread: Option<JoinHandle<Result<Outcome, Error>>>,
}

/// Builds the machine that `config` describes and starts it. When this returns, its vCPUs exist and
/// are about to enter the guest. [`Config::attended_by`] is for what has to happen before they do.
///
/// # Errors
/// [`Error`] if there is no such machine.
pub fn start(config: &Config) -> Result<Running, Error> {
    let (hand, handed) = mpsc::channel();
    let config = config.clone();
    let thread = thread::Builder::new()
        .name("machine".to_owned())
        .spawn(move || {
            run_attended(&config, None, |operator| {
                // Received below, before `start` returns.
                let _ = hand.send(Arc::clone(operator));
            })
        })
        .map_err(Error::Thread)?;
    match handed.recv() {
        Ok(operator) => Ok(Running {
            operator,
            thread: Some(thread),
        }),
        // The sender was dropped, since the machine could not be built.
        Err(_) => match thread.join() {
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) => unreachable!("a machine that ran without an operator"),
            Err(panic) => panic::resume_unwind(panic),
        },
    }
}

impl Running {
    /// Drives it, from any thread.
    pub fn operator(&self) -> &Arc<Operator> {
        &self.operator
    }

    /// Waits until it is over, and returns the outcome. A guest that fails or dies is no error.
    ///
    /// # Errors
    /// [`Error`] if the host did not let it run to its end.
    ///
    /// # Panics
    /// If the thread that ran the machine panicked, which is a bug.
    pub fn wait(mut self) -> Result<Outcome, Error> {
        let thread = self.thread.take();
        match thread.map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(panic)) => panic::resume_unwind(panic),
            None => unreachable!("only this takes the thread, and takes the machine with it"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.operator.quit();
            // There is nothing left that could use the outcome.
            let _ = thread.join();
        }
    }
}
