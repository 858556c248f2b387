use super::*;
use proptest::prelude::*;

/// A statistics file as KVM lays it out: header, id, descriptors, data.
fn blob(fields: &[(&str, u32, u16, u32)]) -> Vec<u8> {
    const NAME: usize = 48;
    let descriptors = 24 + NAME;
    let data = descriptors + fields.len() * (16 + NAME);
    let mut bytes = Vec::new();
    for word in [0, NAME, fields.len(), 24, descriptors, data] {
        bytes.extend(u32::try_from(word).unwrap().to_le_bytes());
    }
    let mut name = b"kvm-4242/vcpu-0".to_vec();
    name.resize(NAME, 0);
    bytes.extend(name);
    for (name, flags, size, offset) in fields {
        bytes.extend(flags.to_le_bytes());
        bytes.extend((-9_i16).to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        let mut name = name.as_bytes().to_vec();
        name.resize(NAME, 0);
        bytes.extend(name);
    }
    bytes
}

fn parse(bytes: &[u8]) -> Result<Schema, StatsError> {
    Schema::read(|offset, into| {
        let offset = usize::try_from(offset).unwrap();
        let from = bytes
            .get(offset..)
            .and_then(|rest| rest.get(..into.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(from);
        Ok(())
    })
}

#[test]
fn fields_are_found_by_the_names_kvm_gives() {
    let schema = parse(&blob(&[
        ("exits", 0, 1, 0),
        ("guest_mode", 0x41, 1, 8),
        ("halt_poll_success_hist", 0x24, 3, 16),
    ]))
    .unwrap();
    let sample = [7, 1, 10, 11, 12];
    assert_eq!(schema.words, 5);
    assert_eq!(schema.field("exits").unwrap().of(&sample), [7]);
    assert!(schema.field("exits").unwrap().grows);
    assert!(!schema.field("guest_mode").unwrap().grows);
    let histogram = schema.field("halt_poll_success_hist").unwrap();
    assert_eq!(
        (histogram.of(&sample), histogram.grows),
        (&[10, 11, 12][..], true)
    );
    assert_eq!(schema.field("invented"), None);
}

#[test]
fn a_damaged_description_is_an_error() {
    assert!(matches!(parse(&[]), Err(StatsError::Read(_))));
    let mut bytes = blob(&[("exits", 0, 1, 0)]);
    bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(parse(&bytes), Err(StatsError::Damaged(_))));
    let bytes = blob(&[("exits", 0, 1, u32::MAX)]);
    assert!(matches!(parse(&bytes), Err(StatsError::Damaged(_))));
}

proptest! {
    #[test]
    fn no_description_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(schema) = parse(&bytes) {
            for field in &schema.fields {
                let _ = field.of(&[1, 2, 3]);
            }
        }
    }
}
