//! `vmm ctl SOCKET COMMAND`: sends one request to a running `vmm --control SOCKET`, from a shell.
//! Turns the command line into a request and the answer into text; the VMM decides what a request
//! means.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use vmm::duration;

use super::Refused;

/// Whom to ask, and what.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The socket that a running vmm listens at (--control)
    socket: PathBuf,

    /// Print the answer as it comes: one JSON object
    #[arg(long)]
    json: bool,

    #[command(subcommand)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Where every vCPU is
    Status,
    /// Hold a vCPU, or all, out of the guest
    Pause { cpu: Cpus },
    /// Undo one pause, or the hold at a probe
    Resume { cpu: Cpus },
    /// Hold a vCPU when it comes to a probe, or to an instruction
    Hold {
        cpu: u32,
        /// A name that `vmm probes` lists
        #[arg(required_unless_present = "at", conflicts_with = "at")]
        probe: Option<String>,
        /// When it comes there that often
        #[arg(long)]
        nth: Option<u64>,
        /// Only with this call at hand
        #[arg(long)]
        call: Option<u64>,
        /// A symbol or an address, in place of a probe
        #[arg(long)]
        at: Option<String>,
    },
    /// Wait until a vCPU is held, and look at it
    Wait {
        cpu: u32,
        #[command(flatten)]
        limit: Limit,
    },
    /// Undo the hold at a probe
    Release { cpu: u32 },
    /// Have a stalled vCPU execute instructions
    Step {
        cpu: u32,
        #[arg(default_value_t = 1)]
        count: u64,
        #[command(flatten)]
        limit: Limit,
    },
    /// Registers, place and pending interrupts of a stalled vCPU
    Look { cpu: u32 },
    /// What a CPU of this guest can be told
    Deeds,
    /// Tell a CPU of a puppet guest to do something, and wait until it is done
    Tell {
        cpu: u32,
        /// Such as `call-many 1-3,5 wait`; `deeds` lists what this guest can be told
        #[arg(required = true)]
        deed: Vec<String>,
        /// Do not wait until it is done
        #[arg(long)]
        detach: bool,
        #[command(flatten)]
        limit: Limit,
    },
    /// Exits, KVM's statistics and what the guest has counted
    Stats,
    /// Turn the trace on or off
    Trace {
        #[arg(value_name = "WAY")]
        state: OnOff,
    },
    /// End the workload of a puppet guest, and have it judged
    Finish {
        #[command(flatten)]
        limit: Limit,
    },
    /// End the run
    Quit,
    /// A request as it is, or those of standard input, one a line
    Raw {
        /// JSON, or -
        request: String,
    },
}

#[derive(Debug, Clone, Copy, Args)]
struct Limit {
    /// How long to wait for it at most, such as 5, 5s or 500ms [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    limit: Option<Duration>,
}

impl Limit {
    /// In seconds, as requests have it.
    fn seconds(self) -> Option<f64> {
        self.limit.map(|limit| limit.as_secs_f64())
    }
}

#[derive(Debug, Clone, Copy)]
enum Cpus {
    All,
    One(u32),
}

impl std::str::FromStr for Cpus {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            _ => text.parse().map(Self::One),
        }
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OnOff {
    On,
    Off,
}

/// Exit status if the VMM refused a request.
const REFUSED: u8 = 1;

/// Exit status if there is no connection, or no answer.
const NO_ANSWER: u8 = 3;

/// Sends the request, and prints the answer.
///
/// # Errors
/// [`Refused`] if there is no answer.
pub fn run(arguments: &Arguments) -> Result<u8, Refused> {
    let mut connection = Connection::to(&arguments.socket)?;
    let print = |answer: &Value| {
        let text = if arguments.json {
            answer.to_string()
        } else {
            for_people(answer)
        };
        // The reader may have closed the pipe.
        let _ = writeln!(io::stdout(), "{text}");
        answer["ok"] == true
    };
    let requests: Vec<String> = match &arguments.ask {
        Ask::Raw { request } if request == "-" => {
            let mut all_well = true;
            for request in io::stdin().lock().lines() {
                let request = request.map_err(|error| Refused {
                    message: format!("cannot read the next request: {error}"),
                    status: 2,
                })?;
                all_well &= print(&connection.ask(&request)?);
            }
            return Ok(if all_well { 0 } else { REFUSED });
        }
        Ask::Raw { request } => vec![request.clone()],
        ask => vec![request(ask).to_string()],
    };
    let mut all_well = true;
    for request in requests {
        let mut answer = connection.ask(&request)?;
        if let Ask::Tell {
            detach: false,
            limit,
            ..
        } = &arguments.ask
            && answer["ok"] == true
        {
            let wait = json!({
                "verb": "wait_done",
                "cpu": answer["cpu"],
                "number": answer["number"],
                "limit": limit.seconds(),
            });
            answer = connection.ask(&wait.to_string())?;
        }
        all_well &= print(&answer);
    }
    Ok(if all_well { 0 } else { REFUSED })
}

fn request(ask: &Ask) -> Value {
    match ask {
        Ask::Status => json!({ "verb": "status" }),
        Ask::Pause { cpu: Cpus::All } => json!({ "verb": "pause_all" }),
        Ask::Pause {
            cpu: Cpus::One(cpu),
        } => json!({ "verb": "pause", "cpu": cpu }),
        Ask::Resume { cpu: Cpus::All } => json!({ "verb": "resume_all" }),
        Ask::Resume {
            cpu: Cpus::One(cpu),
        } => json!({ "verb": "resume", "cpu": cpu }),
        Ask::Hold {
            cpu, at: Some(at), ..
        } => json!({ "verb": "break", "cpu": cpu, "at": at }),
        Ask::Hold {
            cpu,
            probe,
            nth,
            call,
            ..
        } => {
            json!({ "verb": "hold", "cpu": cpu, "probe": probe, "nth": nth, "call": call })
        }
        Ask::Wait { cpu, limit } => {
            json!({ "verb": "wait_held", "cpu": cpu, "limit": limit.seconds() })
        }
        Ask::Release { cpu } => json!({ "verb": "release", "cpu": cpu }),
        Ask::Step { cpu, count, limit } => {
            json!({ "verb": "step", "cpu": cpu, "count": count, "limit": limit.seconds() })
        }
        Ask::Look { cpu } => json!({ "verb": "look", "cpu": cpu }),
        Ask::Deeds => json!({ "verb": "deeds" }),
        Ask::Tell {
            cpu, deed, limit, ..
        } => {
            let deed = deed.join(" ");
            json!({ "verb": "tell", "cpu": cpu, "deed": deed, "limit": limit.seconds() })
        }
        Ask::Stats => json!({ "verb": "stats" }),
        Ask::Trace { state } => {
            json!({ "verb": "trace", "on": matches!(state, OnOff::On) })
        }
        Ask::Finish { limit } => json!({ "verb": "finish", "limit": limit.seconds() }),
        Ask::Quit => json!({ "verb": "quit" }),
        Ask::Raw { .. } => Value::Null,
    }
}

/// A connection to the control socket: one answer for each request.
struct Connection {
    stream: BufReader<UnixStream>,
    name: String,
}

impl Connection {
    fn to(socket: &PathBuf) -> Result<Self, Refused> {
        let name = socket.display().to_string();
        match UnixStream::connect(socket) {
            Ok(stream) => Ok(Self {
                stream: BufReader::new(stream),
                name,
            }),
            Err(error) => Err(Refused {
                message: format!(
                    "cannot connect to {name}: {error}; is there a `vmm --control {name}` running?"
                ),
                status: NO_ANSWER,
            }),
        }
    }

    fn ask(&mut self, request: &str) -> Result<Value, Refused> {
        let failed = |why: String| Refused {
            message: format!("{}: {why}", self.name),
            status: NO_ANSWER,
        };
        let mut answer = String::new();
        let asked = writeln!(self.stream.get_mut(), "{}", request.replace('\n', " "));
        asked
            .and_then(|()| self.stream.read_line(&mut answer))
            .map_err(|error| failed(error.to_string()))?;
        if answer.is_empty() {
            return Err(failed("the machine was over before it answered".to_owned()));
        }
        serde_json::from_str(&answer).map_err(|error| failed(format!("no answer: {error}")))
    }
}

/// An answer for people: a line for each field, nested fields indented.
fn for_people(answer: &Value) -> String {
    if answer["ok"] == false {
        let error = answer["error"].as_str().unwrap_or("refused");
        return format!("vmm: {error}");
    }
    let empty = Map::new();
    let fields = answer.as_object().unwrap_or(&empty);
    let mut lines = Vec::new();
    let shown = fields
        .iter()
        .filter(|(name, _)| !["ok", "id"].contains(&name.as_str()));
    for (name, value) in shown {
        show(name, value, 0, &mut lines);
    }
    if lines.is_empty() {
        lines.push("ok".to_owned());
    }
    lines.join("\n")
}

fn show(name: &str, value: &Value, depth: usize, lines: &mut Vec<String>) {
    let margin = "  ".repeat(depth);
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            lines.push(format!("{margin}{name}"));
            for (name, value) in fields {
                show(name, value, depth + 1, lines);
            }
        }
        Value::Array(entries) if entries.iter().any(Value::is_object) => {
            for entry in entries {
                let one_line: Vec<_> = entry.as_object().map_or_else(Vec::new, |fields| {
                    let told = fields.iter().filter(|(_, value)| !value.is_null());
                    told.map(|(name, value)| format!("{name} {}", plain(value)))
                        .collect()
                });
                lines.push(format!("{margin}{}", one_line.join(", ")));
            }
        }
        value => lines.push(format!("{margin}{name} {}", plain(value))),
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
