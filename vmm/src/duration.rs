//! Times as people write them on the command line: `20s`, `500ms`, `2m`. One parser for every
//! option that takes a time.

use std::time::Duration;

/// Reads a time with its unit, or a number of seconds.
///
/// # Errors
/// A sentence that says what a time looks like.
pub fn parse(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number).ok());
    seconds
        .map_or_else(|| parse_with_unit(text), Ok)
        .map_err(|_| "not a time, such as 20s, 500ms, 2m or a number of seconds".to_owned())
}

/// Reads a time with its unit.
///
/// # Errors
/// As [`parse`].
pub fn parse_with_unit(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "not a time with its unit, such as 500us, 10ms or 2s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_unit_can_be_left_out_and_means_seconds() {
        for (text, milliseconds) in [
            ("20s", 20_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1m 30s", 90_000),
            ("20", 20_000),
            ("0.5", 500),
            ("0", 0),
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(parse(text), Ok(time), "{text}");
        }
        for text in [
            "", "s", "20x", "-1", "-1s", "inf", "NaN", "1e999", "5 apples",
        ] {
            assert!(parse(text).unwrap_err().contains("500ms"), "{text}");
        }
        assert!(parse_with_unit("20").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9.e]{0,30}(s|ms|m|h)?|\\PC*") {
            let _ = parse(&text);
        }
    }
}
