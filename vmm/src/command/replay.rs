//! `vmm replay SCHEDULE GUEST`: runs exactly that schedule again.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use vmm::explore::Replay;
use vmm::explore::schedule::{FORM, Schedule};
use vmm::explore::story::tell;

use super::interruption::{self, interrupted};
use super::{Refused, chain};

/// What to replay.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A schedule that vmm explore has written
    schedule: PathBuf,

    /// Guest image
    guest: PathBuf,

    /// How often
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..))]
    times: u64,

    /// Try it on an image that is not the one on which it was found
    #[arg(long)]
    any_image: bool,
}

/// Replays what `arguments` name, and returns the exit status: 0 if it broke what it is said to break, each time.
///
/// # Errors
/// [`Refused`] if that was not possible.
pub fn run(arguments: &Arguments) -> Result<u8, Refused> {
    let name = arguments.schedule.display();
    let bad = |message| Refused { message, status: 2 };
    let text = fs::read_to_string(&arguments.schedule)
        .map_err(|error| bad(format!("cannot read {name}: {error}")))?;
    let schedule: Schedule = serde_json::from_str(&text)
        .map_err(|error| bad(format!("{name} is no schedule: {error}")))?;
    if schedule.form != FORM {
        let form = &schedule.form;
        return Err(bad(format!(
            "{name} has form {form}, this vmm reads {FORM}"
        )));
    }
    interruption::catch().map_err(|error| Refused {
        message: format!("cannot catch signals: {error}"),
        status: 3,
    })?;
    let replay = Replay {
        guest: &arguments.guest,
        schedule: &schedule,
        times: arguments.times,
        any_image: arguments.any_image,
    };
    let (replayed, story) = tell(&replay, interrupted).map_err(|error| Refused {
        status: if interrupted() {
            interruption::status()
        } else {
            error.exit_status()
        },
        message: chain(&error),
    })?;
    let compared = if replayed.compared_states {
        "stops and states"
    } else {
        "stops only, since this machine begins in another state than that on which it was found"
    };
    let breaks = match &schedule.breaks[..] {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    };
    let mut text = format!("{story}\ncompared   {compared}\n");
    if let Some(other) = &replayed.other {
        text += &format!("another way: {other}\n");
    }
    let (as_told, times) = (replayed.as_told, arguments.times);
    text += &format!("\n{as_told} of {times} replays broke {breaks}\n");
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Refused {
            message: format!("cannot write the result: {error}"),
            status: 3,
        })?;
    Ok(u8::from(as_told != times))
}
