//! gdb's `monitor` commands: those of `vmm ctl`, in the same words, and answered in the same words. What is
//! about gdb itself is not known here.

use clap::Parser;
use serde_json::Value;
use vmm::control::gdb::Monitor;
use vmm::control_characters::spell_out_values;

use super::shown;
use super::verbs::Ask;

/// What somebody has typed behind `monitor`.
#[derive(Debug, Parser)]
#[command(
    name = "monitor",
    no_binary_name = true,
    disable_help_flag = true,
    after_help = "Of gdb itself:\n  \
        physical on|off  Addresses are those of guest memory, or of the thread again\n  \
        why              Why the last thing was refused that gdb asked for"
)]
struct Words {
    #[command(subcommand)]
    ask: Ask,
}

/// The commands of `vmm ctl`.
#[derive(Debug)]
pub struct Commands;

impl Monitor for Commands {
    fn perform(&self, words: &[&str], ask: &mut dyn FnMut(&str) -> String) -> String {
        let asked = match Words::try_parse_from(words) {
            Ok(words) => words.ask,
            Err(error) => return error.render().to_string(),
        };
        let request = match &asked {
            Ask::Raw { request } => request.clone(),
            Ask::Subscribe { .. } => {
                return "events cannot be sent here; use vmm ctl, at the socket of --control"
                    .to_owned();
            }
            asked => without_waiting(asked.request()).to_string(),
        };
        let answer = ask(&request);
        let Ok(mut answer) = serde_json::from_str::<Value>(&answer) else {
            return answer;
        };
        spell_out_values(&mut answer, &[]);
        shown::answer(&asked, &answer)
    }
}

/// The same request, which waits for nothing: while gdb takes commands, the machine stands still.
fn without_waiting(mut request: Value) -> Value {
    if let Some(limit) = request.get_mut("limit") {
        *limit = 0.into();
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn perform(words: &[&str]) -> (String, Vec<String>) {
        let mut asked = Vec::new();
        let said = Commands.perform(words, &mut |request| {
            asked.push(request.to_owned());
            r#"{"ok":true,"version":"\u001b[1m"}"#.to_owned()
        });
        (said, asked)
    }

    #[test]
    fn words_are_requests() {
        let (_, asked) = perform(&["hold", "2", "queue.visit"]);
        let request: Value = serde_json::from_str(&asked[0]).unwrap();
        assert_eq!(
            (&request["verb"], &request["cpu"]),
            (&"hold".into(), &2.into())
        );
        let (_, asked) = perform(&["ready", "--limit", "5"]);
        let request: Value = serde_json::from_str(&asked[0]).unwrap();
        assert_eq!(request["limit"], 0, "{request}");
        let (said, _) = perform(&["hello"]);
        assert!(!said.contains('\u{1b}'), "{said}");
    }

    #[test]
    fn what_makes_no_sense_is_said_and_not_asked() {
        for words in [&["hold"][..], &["nonsense"], &["subscribe"], &[]] {
            let (said, asked) = perform(words);
            assert!(!said.is_empty() && asked.is_empty(), "{words:?}: {said}");
        }
    }
}
