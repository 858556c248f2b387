//! KVM's description of its binary statistics.

use std::io;

use vmm::stats::binary::Schema;

/// Reads `data` as the file that KVM gives.
pub fn read(data: &[u8]) {
    let read_at = |offset: u64, bytes: &mut [u8]| {
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let start = usize::try_from(offset).map_err(|_| end())?;
        let stop = start.checked_add(bytes.len()).ok_or_else(end)?;
        bytes.copy_from_slice(data.get(start..stop).ok_or_else(end)?);
        Ok(())
    };
    let Ok(schema) = Schema::read(read_at) else {
        return;
    };
    for field in &schema.fields {
        assert!(schema.field(&field.name).is_some());
        let _ = field.of(&[1, 2, 3]);
    }
}
