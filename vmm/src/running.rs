//! A machine that runs while its owner does something else: on a thread of its own, with an
//! operator to drive it by and an outcome to wait for.

use std::panic;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::control::operator::Operator;
use crate::{Config, Error, Outcome, run_attended};

/// A machine at work. It ends when its guest does, when one of its limits is reached, or when the
/// operator says so; [`Running::wait`] tells what it came to. One that is dropped ends at once.
#[derive(Debug)]
#[must_use = "a machine that nobody keeps ends at once"]
pub struct Running {
    operator: Arc<Operator>,
    /// `None` once somebody has waited for it.
    thread: Option<JoinHandle<Result<Outcome, Error>>>,
}

/// Builds the machine that `config` describes and lets it go. When this returns, its vCPUs are
/// there and about to enter the guest; who has something to say before says it by
/// [`Config::attended_by`].
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
                // Taken below: nobody goes on before.
                let _ = hand.send(Arc::clone(operator));
            })
        })
        .map_err(Error::Thread)?;
    match handed.recv() {
        Ok(operator) => Ok(Running {
            operator,
            thread: Some(thread),
        }),
        // Its end of the channel is gone, and so is the machine.
        Err(_) => match thread.join() {
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) => unreachable!("a machine that ran without an operator"),
            Err(panic) => panic::resume_unwind(panic),
        },
    }
}

impl Running {
    /// Who drives it, from any thread.
    pub fn operator(&self) -> &Arc<Operator> {
        &self.operator
    }

    /// Waits until it is over, and tells what it came to. A guest that fails or dies is no error.
    ///
    /// # Errors
    /// [`Error`] if the host did not let it run to an end.
    ///
    /// # Panics
    /// If the thread that ran it did, which is a bug.
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
            // Nobody asks what it came to.
            let _ = thread.join();
        }
    }
}
