//! Reports as a table for programs that compute with tables, such as R or pandas: CSV by RFC 4180
//! in the long form, with one figure in a row and everything that tells it from others in columns
//! beside it. Sums over vCPUs are left out: who adds a column up would count them twice.

use std::io::{self, Write};

use csv::{Terminator, WriterBuilder};

use super::Report;
use super::leaves::leaves;

/// The columns.
const COLUMNS: [&str; 12] = [
    "machine", "result", "vmm", "date", "kernel", "kvm", "guest", "words", "vcpus", "vcpu",
    "figure", "value",
];

/// Writes the figures in `report`, which is on the machine with this number, behind the names of
/// the columns if it is the first.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, machine: usize, report: &Report) -> io::Result<()> {
    let mut csv = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(out);
    if machine == 0 {
        csv.write_record(COLUMNS)?;
    }
    let provenance = &report.provenance;
    let same = [
        machine.to_string(),
        report.result.to_string(),
        provenance.vmm.to_string(),
        provenance.date.clone(),
        provenance.host.kernel.clone(),
        provenance.host.kvm.name().to_owned(),
        provenance.guest.hash.clone(),
        provenance.options(),
        report.vcpus.to_string(),
    ];
    let document = serde_json::to_value(report).map_err(io::Error::other)?;
    for leaf in leaves(&document) {
        // Of the whole machine: empty, which R and pandas read as NA.
        let vcpu = leaf.vcpu.map_or_else(String::new, |vcpu| vcpu.to_string());
        let own = [vcpu, leaf.name, leaf.value.to_string()];
        csv.write_record(same.iter().chain(&own))?;
    }
    csv.flush()
}
