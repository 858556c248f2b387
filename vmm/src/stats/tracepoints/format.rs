//! A tracepoint's `format` file, as far as counting needs it: its number and the names of its
//! fields, by which a filter can tell one event from another. Parses text only.

/// What a `format` file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// The number by which `perf_event_open` knows the tracepoint. It changes when the module is
    /// loaded again.
    pub id: u64,
    /// All its fields, the common ones included, in the kernel's order.
    pub fields: Vec<String>,
}

impl Format {
    /// Parses a `format` file; `None` if it has no valid id.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = None;
        let mut fields = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(number) = line.strip_prefix("ID:") {
                id = Some(number.trim().parse().ok()?);
            } else if let Some(field) = line.strip_prefix("field:") {
                fields.extend(name(field).map(str::to_owned));
            } else if line.starts_with("print fmt:") {
                // Only the kernel's print format follows.
                break;
            }
        }
        Some(Self { id: id?, fields })
    }

    /// Whether it has a field of this name.
    pub fn has(&self, field: &str) -> bool {
        self.fields.iter().any(|own| own == field)
    }
}

/// The name in a declaration such as `char comm[16];`.
fn name(declaration: &str) -> Option<&str> {
    let (declaration, _) = declaration.split_once(';')?;
    let declaration = declaration.split('[').next()?;
    declaration.split_whitespace().next_back()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXIT_6_1: &str = include_str!("formats/kvm_exit-6.1");
    const EXIT_6_18: &str = include_str!("formats/kvm_exit-6.18");

    #[test]
    fn kvm_exit_of_either_kernel_is_understood() {
        let old = Format::parse(EXIT_6_1).unwrap();
        let new = Format::parse(EXIT_6_18).unwrap();
        assert_eq!((old.id, new.id), (1419, 103));
        let own = [
            "exit_reason",
            "guest_rip",
            "isa",
            "info1",
            "info2",
            "intr_info",
            "error_code",
            "vcpu_id",
        ];
        assert_eq!(old.fields[4..], own);
        assert_eq!(new.fields[4..12], own);
        assert_eq!(new.fields[12..], ["requests"], "it has grown");
        assert!(new.has("exit_reason") && !new.has("exit"));
    }

    #[test]
    fn kvm_msr_of_either_kernel_is_understood() {
        for text in [
            include_str!("formats/kvm_msr-6.1"),
            include_str!("formats/kvm_msr-6.18"),
        ] {
            let format = Format::parse(text).unwrap();
            assert_eq!(format.fields[4..], ["write", "ecx", "data", "exception"]);
        }
    }

    #[test]
    fn arrays_have_names_and_what_has_no_number_is_no_tracepoint() {
        let text = "name: x\nID: 7\nformat:\n\tfield:char comm[16];\toffset:8;\tsize:16;\n";
        assert_eq!(Format::parse(text).unwrap().fields, ["comm"]);
        for bad in ["", "ID:", "ID: x", "name: x\nID: -1", "print fmt: \nID: 3"] {
            assert_eq!(Format::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in any::<String>()) {
            let _ = Format::parse(&text);
        }

        #[test]
        fn nor_is_any_that_is_damaged(
            from in 0..EXIT_6_18.len(), to in 0..EXIT_6_18.len(), with in ".{0,9}",
        ) {
            let (from, to) = (from.min(to), from.max(to));
            let damaged = [&EXIT_6_18[..from], with.as_str(), &EXIT_6_18[to..]].concat();
            let _ = Format::parse(&damaged);
        }
    }
}
