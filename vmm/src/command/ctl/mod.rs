//! `vmm ctl SOCKET COMMAND`: sends a request to a running `vmm --control SOCKET`, from a shell, and
//! prints what is answered. The VMM decides what a request means; here are only the command line
//! and the exit status.

mod connection;
pub mod monitor;
mod shown;
mod verbs;

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use vmm::confinement::Files;
use vmm::control_characters::spell_out_values;
use vmm::duration;

use super::printing::{print, print_json};
use super::{Refused, complain};
use connection::{Connection, NO_ANSWER};
use verbs::{Ask, Until};

/// Whom to ask, and what.
#[derive(Debug, Args)]
#[command(after_help = "Exit status:\n  \
        0  it was so\n  \
        1  the VMM said no; the message says why\n  \
        2  bad usage\n  \
        3  nobody answers, or what is answered cannot be printed\n\n\
        Calls are meant by name, as everywhere: 0:0:2 is the second call (2) that CPU 0 made in its \
        task (0)")]
pub struct Arguments {
    /// The socket that a running vmm listens at (--control)
    socket: PathBuf,

    /// Wait until somebody listens there and answers, at most this long, such as 10, 10s or 500ms
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse)]
    wait: Option<Duration>,

    /// Print what is answered as it comes: one JSON object a line
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    ask: Ask,
}

/// Exit status if the VMM refused a request.
const REFUSED: u8 = 1;

impl Arguments {
    /// The files that its work needs.
    pub fn files(&self) -> Files {
        Files::new([&self.socket], [])
    }
}

/// Sends the request, and prints the answer.
///
/// # Errors
/// [`Refused`] if there is no answer.
pub fn run(arguments: &Arguments) -> Result<u8, Refused> {
    let mut session = Session {
        connection: Connection::to(&arguments.socket, arguments.wait)?,
        arguments,
        is_well: true,
    };
    match &arguments.ask {
        Ask::Raw { request } if request == "-" => {
            for request in io::stdin().lock().lines() {
                let request = request.map_err(|error| Refused {
                    message: format!("cannot read the next request: {error}"),
                    status: 2,
                })?;
                // Nobody answers to nothing.
                if !request.trim().is_empty() && session.ask(&request)?.is_none() {
                    break;
                }
            }
        }
        Ask::Raw { request } if request.trim().is_empty() => {
            return Err(Refused {
                message: "there is no request in an empty line".to_owned(),
                status: 2,
            });
        }
        Ask::Raw { request } => _ = session.ask(request)?,
        Ask::Tell {
            until: Until::Done, ..
        } => session.tell()?,
        Ask::Subscribe { .. } => session.subscribe()?,
        ask => _ = session.ask(&ask.request().to_string())?,
    }
    Ok(if session.is_well { 0 } else { REFUSED })
}

/// One connection, and what has come of its requests.
struct Session<'a> {
    connection: Connection,
    arguments: &'a Arguments,
    /// Whether every answer was yes.
    is_well: bool,
}

impl Session<'_> {
    /// Asks, prints the answer, and returns it; `None` if nobody reads what is printed. Events that
    /// come before it are printed too.
    fn ask(&mut self, request: &str) -> Result<Option<Value>, Refused> {
        let deadline = self.connection.send(request)?;
        loop {
            let Some(line) = self.connection.receive(Some(deadline))? else {
                return Err(self.connection.unanswered());
            };
            if !self.print(&line)? {
                return Ok(None);
            }
            if line["event"].is_null() {
                return Ok(Some(line));
            }
        }
    }

    /// Prints an answer or an event, and returns whether somebody still reads.
    fn print(&mut self, line: &Value) -> Result<bool, Refused> {
        self.is_well &= line["ok"] != false && line["ran_on"] != false;
        let text = match self.arguments.json {
            true => line.to_string(),
            false => {
                // The names in it, of places in an image for example, are not to look like lines.
                let mut line = line.clone();
                spell_out_values(&mut line, &[]);
                shown::answer(&self.arguments.ask, &line)
            }
        };
        if line["ok"] == false && !self.arguments.json {
            complain(&text);
            return Ok(true);
        }
        let printed = match self.arguments.json {
            true => print_json(&format!("{text}\n")),
            false => print(&format!("{text}\n")),
        };
        match printed {
            Ok(()) => Ok(true),
            // The reader has closed the pipe, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Refused {
                message: format!("cannot print what was answered: {error}"),
                status: NO_ANSWER,
            }),
        }
    }

    /// Tells a CPU to do something, says at once which call it makes, and then what has come of it.
    fn tell(&mut self) -> Result<(), Refused> {
        let Ask::Tell { limit, .. } = &self.arguments.ask else {
            return Ok(());
        };
        let Some(made) = self.ask(&self.arguments.ask.request().to_string())? else {
            return Ok(());
        };
        // A deed that makes no call is done by now.
        if made["ok"] == false || made.get("result").is_some() {
            return Ok(());
        }
        let wait = json!({
            "verb": "wait_done",
            "cpu": made["cpu"],
            "number": made["number"],
            "limit": limit.seconds(),
        });
        self.ask(&wait.to_string()).map(|_| ())
    }

    /// Prints events until the connection ends.
    fn subscribe(&mut self) -> Result<(), Refused> {
        let answer = self.ask(&self.arguments.ask.request().to_string())?;
        let Some(answer) = answer.filter(|answer| answer["ok"] == true) else {
            return Ok(());
        };
        let kinds = answer["events"].as_array();
        let wants_the_end = kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "ended"));
        let mut has_ended = false;
        while let Some(event) = self.connection.receive(None)? {
            has_ended = event["event"] == "ended";
            if !self.print(&event)? {
                return Ok(());
            }
        }
        match has_ended || !wants_the_end {
            true => Ok(()),
            false => Err(self.connection.lost()),
        }
    }
}
