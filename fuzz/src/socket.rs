//! What a client says at the control socket, line by line.

use serde_json::Value;
use vmm::control::socket::answer_without_machine;

/// Has each line of `data` answered.
pub fn read(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        let answer = answer_without_machine(line);
        assert!(!answer.contains('\n'), "an answer is one line");
        let answer: Value = serde_json::from_str(&answer).expect("an answer is JSON");
        assert!(answer["ok"].is_boolean(), "{answer}");
    }
}
