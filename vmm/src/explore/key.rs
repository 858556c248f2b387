//! Keys of states, as they stand in files: a key is a hash that tells a state from all others.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `key` as 32 hexadecimal digits.
pub fn to_hex(key: u128) -> String {
    format!("{key:032x}")
}

/// The key of a state, in a file: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Key(#[schemars(with = "String")] pub u128);

impl From<Key> for String {
    fn from(key: Key) -> Self {
        to_hex(key.0)
    }
}

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        u128::from_str_radix(&text, 16)
            .map(Self)
            .map_err(|_| format!("\"{text}\" is no key of a state: 32 hexadecimal digits"))
    }
}
