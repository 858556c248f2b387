//! One line of the table: what is sent, to which CPUs, in which state, and how. Plain data, by the
//! names that the guest's manifest has for its values; knows neither the manifest nor any machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::lab::Transport;

/// The value of the guest's option for the transport that leaves the choice to the guest.
pub(super) const AUTO: &str = "auto";

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cell {
    /// `ipi`, or `call`.
    pub by: String,
    /// To whom: `self`, `one`, `some` or `all`.
    pub to: String,
    /// What the other CPUs do: `halted`, `running` or `stalled`.
    pub receiver: String,
    /// The transport.
    pub transport: String,
    /// The mode of the APICs, if it is not the transport's own.
    pub apic: Option<String>,
    /// The design of the queue; it matters to calls to several.
    pub queue: Option<String>,
}

impl Cell {
    /// To how many of `vcpus` CPUs a round is sent.
    pub fn targets(&self, vcpus: u32) -> u32 {
        match self.to.as_str() {
            "nobody" => 0,
            "some" => (vcpus - 1).div_ceil(3),
            "all" => vcpus - 1,
            _ => 1,
        }
    }

    /// By what it is sent: the queue design or the transport, and the mode of the APICs if that is
    /// not the transport's own.
    pub fn how(&self) -> String {
        let how = self.queue.as_deref().unwrap_or(&self.transport);
        match &self.apic {
            Some(apic) => format!("{how} ({apic})"),
            None => how.to_owned(),
        }
    }

    /// Whether the APICs are in xAPIC mode, and so are reached as a page of memory.
    pub(super) fn is_xapic(&self) -> bool {
        self.apic.as_deref().unwrap_or(&self.transport) == Transport::Xapic.name()
    }

    /// An IPI without a call.
    pub(super) fn ipi(to: &str, receiver: &str, transport: &str, apic: Option<&str>) -> Self {
        Self {
            by: "ipi".to_owned(),
            to: to.to_owned(),
            receiver: receiver.to_owned(),
            transport: transport.to_owned(),
            apic: apic.map(str::to_owned),
            queue: None,
        }
    }

    /// A call, over x2APIC.
    pub(super) fn call(to: &str, receiver: &str, queue: Option<&str>) -> Self {
        Self {
            by: "call".to_owned(),
            queue: queue.map(str::to_owned),
            ..Self::ipi(to, receiver, Transport::X2apic.name(), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_counted_as_the_guest_does() {
        let targets = |to: &str| Cell::ipi(to, "halted", "x2apic", None).targets(8);
        assert_eq!(
            ["nobody", "self", "one", "some", "all"].map(targets),
            [0, 1, 1, 3, 7]
        );
    }
}
