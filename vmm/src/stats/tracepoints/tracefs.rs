//! Finds and reads tracefs, in which the kernel describes its tracepoints. It is mounted in one of
//! a few places or not at all, and usually only root may read it. Mounts nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::format::Format;
use crate::control_characters::spell_out_path;
use crate::stats::sources::{Status, Unavailable};

/// The usual mount points (Linux, `Documentation/trace/ftrace.rst`).
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// A mounted tracefs.
#[derive(Debug)]
pub struct Tracefs {
    root: PathBuf,
}

impl Tracefs {
    /// Finds it.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn find() -> Result<Self, Unavailable> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut denied = None;
        for root in PLACES.into_iter().chain(mounted(&mounts)) {
            match fs::metadata(Path::new(root).join("events")) {
                Ok(_) => return Ok(Self { root: root.into() }),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    denied.get_or_insert(root);
                }
                Err(_) => {}
            }
        }
        Err(match denied {
            Some(root) => unreadable(Path::new(root)),
            None => Unavailable {
                status: Status::Absent,
                reason: "tracefs is not mounted".to_owned(),
                remedy: Some(format!("as root: mount -t tracefs none {}", PLACES[0])),
            },
        })
    }

    /// Reads the format of KVM's tracepoint `name`.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn kvm_event(&self, name: &str) -> Result<Format, Unavailable> {
        let path = self.root.join("events/kvm").join(name).join("format");
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unavailable {
                status: Status::Absent,
                reason: format!("this host's KVM has no tracepoint {name}"),
                remedy: None,
            },
            io::ErrorKind::PermissionDenied => unreadable(&path),
            _ => Unavailable {
                status: Status::Absent,
                reason: format!("cannot read {}: {error}", spell_out_path(&path)),
                remedy: None,
            },
        })?;
        Format::parse(&text).ok_or_else(|| Unavailable {
            status: Status::Absent,
            reason: format!("{} makes no sense", spell_out_path(&path)),
            remedy: None,
        })
    }
}

fn unreadable(path: &Path) -> Unavailable {
    Unavailable {
        status: Status::Denied,
        reason: format!("this user may not read {}", spell_out_path(path)),
        remedy: Some(super::GRANT.to_owned()),
    }
}

/// Where a tracefs is mounted, by the list of mounts. Mount points with a blank in their path are
/// not found.
fn mounted(mounts: &str) -> impl Iterator<Item = &str> {
    mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next() == Some("tracefs")).then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_wherever_it_is_mounted() {
        let mounts =
            "proc /proc proc rw 0 0\n\nnone /mnt/t tracefs rw 0 0\ntracefs /tracefs ext4\n";
        assert_eq!(mounted(mounts).collect::<Vec<_>>(), ["/mnt/t"]);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let root = tempfile::tempdir().unwrap();
        let tracefs = Tracefs {
            root: root.path().to_owned(),
        };
        let lack = tracefs.kvm_event("kvm_exit").unwrap_err();
        assert_eq!(lack.status, Status::Absent);
        assert!(lack.reason.contains("kvm_exit"));
        let event = root.path().join("events/kvm/kvm_exit");
        fs::create_dir_all(&event).unwrap();
        fs::write(event.join("format"), "nonsense").unwrap();
        let lack = tracefs.kvm_event("kvm_exit").unwrap_err();
        assert!(lack.reason.contains("makes no sense"), "{}", lack.reason);
        fs::write(event.join("format"), include_str!("formats/kvm_exit-6.18")).unwrap();
        assert_eq!(tracefs.kvm_event("kvm_exit").unwrap().id, 103);
    }
}
