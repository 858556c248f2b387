//! Speaks with one gdb about one machine, from its first word until it leaves, vanishes, says what is no
//! word of the protocol, or the machine is over. Whatever ended it, the machine goes on afterwards as if
//! nobody had been there.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use gdbstub::common::Signal;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, GdbStubError};

use super::debuggee::Debuggee;
use super::resuming::Stop;
use super::server::Shared;
use crate::control::operator::{Operator, OperatorError};
use crate::gdb::Client;
use crate::waiting::Waiting;

/// Why a session ended before gdb left.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The connection.
    #[error("the connection failed")]
    Connection(#[from] io::Error),
    /// It spoke otherwise than gdb does.
    #[error("what it says is not gdb's protocol")]
    NotGdb,
    /// What gdbstub says of a packet, or the machine refused.
    #[error("{0}")]
    Protocol(String),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] OperatorError),
}

impl From<GdbStubError<OperatorError, io::Error>> for SessionError {
    fn from(error: GdbStubError<OperatorError, io::Error>) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// What a session waits for.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// Some bytes have come.
    Words,
    /// A vCPU has stopped, or the machine is over.
    Machine,
    /// The client has gone, or the server closes.
    End,
}

/// What has come from the client, and from whom more comes.
struct Input<'a> {
    shared: &'a Shared,
    operator: &'a Arc<Operator>,
    /// The client, the machine's news and the server's.
    waiting: Waiting<3>,
    words: VecDeque<u8>,
}

impl Input<'_> {
    /// Waits until something happens. What has come is in `words` then.
    fn wait(&mut self, client: &mut Client) -> io::Result<News> {
        loop {
            if self.shared.is_closing() {
                return Ok(News::End);
            }
            let [has_words, has_stopped, has_server_news] = self.waiting.wait()?;
            if has_stopped {
                return Ok(News::Machine);
            }
            if has_words {
                let words = client.take()?;
                self.words.extend(&words);
                return Ok(match words.is_empty() {
                    true => News::End,
                    false => News::Words,
                });
            }
            // That of another machine is no news here: this one is over then, and says so itself.
            if has_server_news && !self.shared.is_closing() {
                let _ = self.shared.news.read();
            }
        }
    }
}

/// Serves `client`.
///
/// # Errors
/// [`SessionError`] if it had to be let go.
pub(super) fn serve(
    mut client: Client,
    shared: &Shared,
    operator: &Arc<Operator>,
) -> Result<(), SessionError> {
    let files = [
        client.as_raw_fd(),
        operator.debugger_news().as_raw_fd(),
        shared.news.as_raw_fd(),
    ];
    let mut input = Input {
        shared,
        operator,
        waiting: Waiting::of(files)?,
        words: VecDeque::new(),
    };
    // Somebody who connects and says nothing does not stop the machine.
    while input.words.is_empty() {
        match input.wait(&mut client)? {
            News::Words => {}
            News::End => return Ok(()),
            News::Machine if operator.over().is_some() => return Ok(()),
            News::Machine => _ = operator.debugger_stops(),
        }
    }
    // A packet, an acknowledgement, or ^C.
    if ![b'$', b'+', b'-', 3].contains(&input.words[0]) {
        return Err(SessionError::NotGdb);
    }
    let mut debuggee = Debuggee::new(operator, &*shared.monitor);
    let served = match debuggee.stop() {
        Ok(()) => speak(client, &mut input, &mut debuggee),
        Err(error) => Err(error.into()),
    };
    if operator.over().is_none() {
        // Fails if the machine is over meanwhile.
        let _ = debuggee.let_go();
    }
    served
}

fn speak(
    client: Client,
    input: &mut Input<'_>,
    debuggee: &mut Debuggee<'_>,
) -> Result<(), SessionError> {
    let operator = input.operator;
    let mut state = GdbStub::new(client).run_state_machine(debuggee)?;
    let mut was_running = false;
    loop {
        // What ^C means depends on the state in which it comes.
        match state {
            GdbStubStateMachine::Idle(_) => was_running = false,
            GdbStubStateMachine::Running(_) => was_running = true,
            _ => {}
        }
        state = match state {
            GdbStubStateMachine::Idle(mut idle) => match input.words.pop_front() {
                Some(byte) => idle.incoming_data(debuggee, byte)?,
                None => {
                    match input.wait(idle.borrow_conn())? {
                        News::End => return Ok(()),
                        News::Words => {}
                        News::Machine if operator.over().is_some() => return Ok(()),
                        // Those that stopped by themselves while all were being stopped.
                        News::Machine => debuggee.stop()?,
                    }
                    idle.into()
                }
            },
            GdbStubStateMachine::Running(mut running) => {
                if let Some(ended) = operator.debugger_end() {
                    let stop = match ended {
                        Some(status) => Stop::Exited(status),
                        None => Stop::Terminated(Signal::SIGABRT),
                    };
                    running.report_stop(debuggee, stop)?
                } else if let Some(stop) = debuggee.next_stop()? {
                    running.report_stop(debuggee, stop)?
                } else if let Some(byte) = input.words.pop_front() {
                    running.incoming_data(debuggee, byte)?
                } else {
                    match input.wait(running.borrow_conn())? {
                        News::End => return Ok(()),
                        News::Words | News::Machine => running.into(),
                    }
                }
            }
            // It has crossed a stop of which gdb was told meanwhile. All is stopped, as it wants.
            GdbStubStateMachine::CtrlCInterrupt(interrupt) if !was_running => {
                interrupt.interrupt_handled(debuggee, None::<Stop>)?
            }
            GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                debuggee.stop()?;
                let stop = debuggee.interrupted();
                interrupt.interrupt_handled(debuggee, Some(stop))?
            }
            GdbStubStateMachine::Disconnected(disconnected) => {
                if disconnected.get_reason() == DisconnectReason::Kill {
                    operator.quit();
                }
                return Ok(());
            }
        };
    }
}
