//! Why a CPU refused a command, as its mailbox says. The guest writes the number, so that any
//! negative number has to be expected.

use std::fmt;

use shared::mailbox::Refusal;

/// A negative result: the CPU did not carry out the deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct DeedRefusal(i64);

impl DeedRefusal {
    /// The result of a deed, [`shared::mailbox::Mailbox::result`].
    ///
    /// # Errors
    /// [`DeedRefusal`] if it is negative.
    pub fn check(result: i64) -> Result<i64, Self> {
        match result {
            ..0 => Err(Self(result)),
            0.. => Ok(result),
        }
    }
}

impl fmt::Display for DeedRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Refusal::try_from(self.0) {
            Ok(refusal) => f.write_str(refusal.describe()),
            Err(number) => write!(f, "the guest says {number}, a reason that has no name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_negative_result_is_a_refusal() {
        assert_eq!(DeedRefusal::check(0), Ok(0));
        assert_eq!(DeedRefusal::check(i64::MAX), Ok(i64::MAX));
        for refusal in Refusal::ALL {
            let refused = DeedRefusal::check(refusal as i64).unwrap_err();
            assert_eq!(refused.to_string(), refusal.describe());
        }
        let unnamed = DeedRefusal::check(-1).unwrap_err();
        assert_eq!(
            unnamed.to_string(),
            "the guest says -1, a reason that has no name"
        );
        assert!(DeedRefusal::check(i64::MIN).is_err());
    }
}
