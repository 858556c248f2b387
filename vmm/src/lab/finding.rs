//! What a finding of the guest's oracles says, in words. Looks at the finding and the manifest, and
//! at nothing else.

use shared::lab::Finding;
use shared::ledger::CallId;

use super::call_name::CallName;
use super::oracles;
use crate::manifest::Manifest;

/// The call that `finding` is about, if it is about one.
pub fn call(finding: &Finding) -> Option<CallId> {
    (finding.call != 0).then(|| CallId::from_raw(finding.call))
}

/// The name of the call that `finding` is about, if it is about one.
pub fn call_name(finding: &Finding) -> Option<String> {
    call(finding).map(|id| CallName(id).to_string())
}

/// A sentence about `finding`, which was made in a guest with this manifest.
pub fn sentence(finding: &Finding, manifest: &Manifest) -> String {
    let call = call_name(finding);
    let subject = call.as_deref().unwrap_or("the guest");
    let what = match manifest.oracle(finding.oracle) {
        Some(oracle) => oracle.about.clone(),
        None => {
            let oracle = oracles::name(manifest, finding.oracle);
            format!("broke {oracle}, of which the guest's image says nothing")
        }
    };
    format!(
        "{subject} {what} (seen on CPU {}: {:#x})",
        finding.cpu, finding.seen
    )
}
