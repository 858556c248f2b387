//! A single stall of one vCPU, at a given time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::settings::{Settings, StallError, duration, number};

/// Keeps a vCPU out of the guest once. Written as `cpu=1,at=10ms,for=5ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedStall {
    /// The vCPU.
    pub cpu: u32,
    /// When it is asked to leave the guest, counted from the start of the workload. Up to a day.
    pub at: Duration,
    /// For how long it is then kept out. A microsecond to a day.
    pub length: Duration,
}

impl FromStr for PlannedStall {
    type Err = StallError;

    fn from_str(text: &str) -> Result<Self, StallError> {
        let example = "cpu=1,at=10ms,for=5ms";
        let settings = Settings::read(text, &["cpu", "at", "for"], example)?;
        Ok(Self {
            cpu: settings.value("cpu", number)?,
            at: settings.value("at", |text| duration(text, Duration::ZERO))?,
            length: settings.value("for", |text| duration(text, Duration::from_micros(1)))?,
        })
    }
}

impl fmt::Display for PlannedStall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [at, length] = [self.at, self.length].map(|time| {
            humantime::format_duration(time)
                .to_string()
                .replace(' ', "")
        });
        write!(f, "cpu={},at={at},for={length}", self.cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let stall = PlannedStall {
            cpu: 1,
            at: Duration::from_micros(10_500),
            length: Duration::from_secs(90),
        };
        assert_eq!(stall.to_string(), "cpu=1,at=10ms500us,for=1m30s");
        for text in ["cpu=1,at=10ms500us,for=1m30s", "for=1.5m,at=10.5ms,cpu=1"] {
            assert_eq!(text.parse(), Ok(stall), "{text}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in [
            "",
            "1",
            "cpu=1",
            "cpu=1,at=1ms",
            "cpu=1,for=1ms",
            "at=1ms,for=1ms",
            "cpu=x,at=1ms,for=1ms",
            "cpu=-1,at=1ms,for=1ms",
            "cpu=1,2,at=1ms,for=1ms",
            "cpu=4294967296,at=1ms,for=1ms",
            "cpu=1,at=1,for=1ms",
            "cpu=1,at=-1ms,for=1ms",
            "cpu=1,at=1ms,for=0s",
            "cpu=1,at=1ms,for=2days",
            "cpu=1,at=2days,for=1ms",
            "cpu=1,at=1ms,for=1ms,for=2ms",
            "cpu=1,at=1ms,for=1ms,until=2ms",
        ] {
            let error = text.parse::<PlannedStall>().unwrap_err().to_string();
            assert!(
                error.ends_with("'cpu=1,at=10ms,for=5ms'"),
                "{text}: {error}"
            );
        }
    }
}
