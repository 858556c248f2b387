//! Serves one gdb on a recording, from its first word until it leaves, or a signal or the time limit ends
//! it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;

use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{GdbStub, GdbStubError};
use tracing::info;

use super::moving::Stop;
use super::recording::{Position, Recording, RecordingError};
use super::target::Target;
use crate::gdb::{Client, Listener};
use crate::waiting::Waiting;

/// Why a session ended before gdb left.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The connection.
    #[error("the connection to gdb failed")]
    Connection(#[from] io::Error),
    /// What gdbstub says of a packet, or the recording.
    #[error("{0}")]
    Protocol(String),
    /// The machine.
    #[error(transparent)]
    Recording(#[from] RecordingError),
}

impl From<GdbStubError<RecordingError, io::Error>> for SessionError {
    fn from(error: GdbStubError<RecordingError, io::Error>) -> Self {
        let text = error.to_string();
        let known = match error.is_target_error() {
            true => error.into_target_error().map(Self::Recording),
            false => (error.into_connection_error()).map(|(error, _)| Self::Connection(error)),
        };
        known.unwrap_or(Self::Protocol(text))
    }
}

/// Serves the first gdb that connects to `listener` on `recording`, from the beginning on.
///
/// # Errors
/// [`SessionError`] if gdb had to be let go.
pub fn serve(listener: &Listener, recording: &mut Recording) -> Result<(), SessionError> {
    let Some(client) = accept(listener, recording)? else {
        return Ok(());
    };
    recording.go_to(Position::default())?;
    match speak(client, recording) {
        // It leaves as it likes.
        Err(SessionError::Connection(error)) => {
            info!("gdb is gone: {error}");
            Ok(())
        }
        served => served,
    }
}

/// Waits for a client; for none any more if a signal arrives.
fn accept(listener: &Listener, recording: &Recording) -> io::Result<Option<Client>> {
    let waiting = Waiting::of([listener.as_raw_fd()])?;
    while !recording.is_over() {
        let [has_client] = waiting.wait()?;
        if !has_client {
            continue;
        }
        match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            accepted => return accepted.map(Some),
        }
    }
    Ok(None)
}

fn speak(client: Client, recording: &mut Recording) -> Result<(), SessionError> {
    let waiting = Waiting::of([client.as_raw_fd()])?;
    let mut words: VecDeque<u8> = VecDeque::new();
    let mut target = Target::new(recording);
    let mut state = GdbStub::new(client).run_state_machine(&mut target)?;
    let mut was_running = false;
    loop {
        // What ^C means depends on the state in which it comes.
        match state {
            GdbStubStateMachine::Idle(_) => was_running = false,
            GdbStubStateMachine::Running(_) => was_running = true,
            _ => {}
        }
        if target.recording.is_over() {
            return Ok(());
        }
        state = match state {
            GdbStubStateMachine::Idle(mut idle) => match words.pop_front() {
                Some(byte) => idle.incoming_data(&mut target, byte)?,
                None => {
                    if waiting.wait()? == [true] && !hear(idle.borrow_conn(), &mut words)? {
                        return Ok(());
                    }
                    idle.into()
                }
            },
            GdbStubStateMachine::Running(mut running) => {
                if waiting.look()? == [true] && !hear(running.borrow_conn(), &mut words)? {
                    return Ok(());
                }
                match words.pop_front() {
                    Some(byte) => running.incoming_data(&mut target, byte)?,
                    None => match target.go_on()? {
                        Some(stop) => running.report_stop(&mut target, stop)?,
                        None => running.into(),
                    },
                }
            }
            // It has crossed a stop of which gdb was told meanwhile.
            GdbStubStateMachine::CtrlCInterrupt(interrupt) if !was_running => {
                interrupt.interrupt_handled(&mut target, None::<Stop>)?
            }
            GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                let stop = target.interrupted()?;
                interrupt.interrupt_handled(&mut target, Some(stop))?
            }
            GdbStubStateMachine::Disconnected(_) => return Ok(()),
        };
    }
}

/// Takes what has come. Returns whether the client is still there.
fn hear(client: &mut Client, words: &mut VecDeque<u8>) -> io::Result<bool> {
    let some = client.take()?;
    words.extend(&some);
    Ok(!some.is_empty())
}
