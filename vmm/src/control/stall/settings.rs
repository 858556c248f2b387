//! Values of the form `key=value,key=value`, as `--stall` and `--steal` take them. Knows neither.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::closest::did_you_mean;

/// The longest time that is accepted: a day.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What is wrong with the value of an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; a good one is '{example}'")]
pub struct StallError {
    problem: String,
    example: &'static str,
}

/// The settings in one value.
#[derive(Debug)]
pub struct Settings<'a> {
    pairs: Vec<(&'a str, String)>,
    example: &'static str,
}

impl<'a> Settings<'a> {
    /// Takes `text` apart. Every key must be one of `keys` and occur once. A piece that begins with
    /// a digit belongs to the list before it: `cpus=0-2,5`.
    pub fn read(text: &'a str, keys: &[&str], example: &'static str) -> Result<Self, StallError> {
        let mut settings = Self {
            pairs: Vec::new(),
            example,
        };
        for piece in text.split(',') {
            let Some((key, value)) = piece.split_once('=') else {
                let continues = piece.starts_with(|first: char| first.is_ascii_digit());
                let Some((_, list)) = settings.pairs.last_mut().filter(|_| continues) else {
                    return Err(settings.error(format!("\"{piece}\" is no KEY=VALUE")));
                };
                list.push(',');
                list.push_str(piece);
                continue;
            };
            if !keys.contains(&key) {
                let known = keys.join(", ");
                let guess = did_you_mean(key, keys.iter().copied());
                let why = format!("there is no key \"{key}\", only {known}{guess}");
                return Err(settings.error(why));
            }
            if settings.find(key).is_some() {
                return Err(settings.error(format!("{key}= is given twice")));
            }
            settings.pairs.push((key, value.to_owned()));
        }
        Ok(settings)
    }

    /// The value of a key that must be there, as `parse` reads it.
    pub fn value<T, E: Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, StallError> {
        self.optional(key, parse)?
            .ok_or_else(|| self.error(format!("{key}= is missing")))
    }

    /// The value of a key that may be there.
    pub fn optional<T, E: Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, StallError> {
        self.find(key)
            .map(|value| {
                parse(value).map_err(|problem| self.error(format!("{key}={value}: {problem}")))
            })
            .transpose()
    }

    fn find(&self, key: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(known, _)| *known == key);
        pair.map(|(_, value)| value.as_str())
    }

    fn error(&self, problem: String) -> StallError {
        StallError {
            problem,
            example: self.example,
        }
    }
}

/// Reads a number.
pub fn number<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "not a whole number")
}

/// Reads a time from `shortest` to [`LONGEST`].
pub fn duration(text: &str, shortest: Duration) -> Result<Duration, String> {
    let time = crate::duration::parse_with_unit(text)?;
    if (shortest..=LONGEST).contains(&time) {
        return Ok(time);
    }
    let [shortest, longest] = [shortest, LONGEST].map(humantime::format_duration);
    Err(format!("a time from {shortest} to {longest} is needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings<'_>, String> {
        Settings::read(text, &["a", "b"], "a=1,b=2").map_err(|error| error.to_string())
    }

    #[test]
    fn keys_have_their_values_in_any_order() {
        let settings = read("b=2,a=1,3-4").unwrap();
        assert_eq!(
            settings
                .value("a", |text| Ok::<_, String>(text.to_owned()))
                .unwrap(),
            "1,3-4"
        );
        assert_eq!(settings.value("b", number::<u32>), Ok(2));
        assert_eq!(read("a=1").unwrap().optional("b", number::<u32>), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named_with_an_example() {
        for (text, problem) in [
            ("", "\"\" is no KEY=VALUE"),
            ("5", "\"5\" is no KEY=VALUE"),
            ("a=1,", "\"\" is no KEY=VALUE"),
            ("a=1,x", "\"x\" is no KEY=VALUE"),
            ("a=1,c=3", "there is no key \"c\", only a, b"),
            ("a=1,b=2,a=3", "a= is given twice"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error, format!("{problem}; a good one is 'a=1,b=2'"));
        }
        let settings = read("a=x").unwrap();
        let missing = settings.value("b", number::<u32>).unwrap_err();
        assert!(missing.to_string().starts_with("b= is missing; "));
        let wrong = settings.value("a", number::<u32>).unwrap_err();
        assert!(wrong.to_string().starts_with("a=x: not a whole number; "));
    }

    #[test]
    fn times_have_units_and_bounds() {
        let read = |text| duration(text, Duration::from_micros(1));
        assert_eq!(read("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(read("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(read("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(read("1day"), Ok(LONGEST));
        assert!(read("25h").unwrap_err().contains("from 1us to 1day"));
        assert!(read("0s").is_err() && read("999ns").is_err());
        for text in [
            "",
            "5",
            "ms",
            "-5ms",
            "5 apples",
            "inf",
            "99999999999999999999s",
            "1e3s",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(duration("0s", Duration::ZERO), Ok(Duration::ZERO));
    }
}
