//! Where figures come from: which `vmm` ran which guest on which host, with which words, driven by
//! which script or case, and when. One record, which is made here alone and is part of every
//! output.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::control_characters::spell_out_all;
use crate::counted::counted;
use crate::stats::sources::Kvm;

/// What `vmm --version` prints behind the name: the version and the commit.
pub const VERSION: &str = env!("VMM_VERSION");

/// Digits of a hash or a commit that people are shown.
const DIGITS: usize = 12;

/// Where figures come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Provenance {
    /// The command.
    pub vmm: Build,
    /// When it began, in UTC, as RFC 3339 has it.
    pub date: String,
    /// The host.
    pub host: Host,
    /// The guest image.
    pub guest: Input,
    /// The initrd that was in its memory; `null` without one.
    #[serde(default)]
    pub initrd: Option<Input>,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// The host's CPUs to which the vCPUs were bound, as `--pin` has them; `null` if they were
    /// bound to none.
    #[serde(default)]
    pub pin: Option<String>,
    /// The words that the guest was given, without the address of the lab.
    pub given: String,
    /// The options of the run as the guest says that it took them, those that nobody asked for too;
    /// `null` if it has not said, or there were several runs.
    pub words: Option<BTreeMap<String, String>>,
    /// The script that drove it; `null` without one.
    pub script: Option<Input>,
    /// The case that was explored; `null` without one.
    pub case: Option<Input>,
}

/// A `vmm` command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Build {
    /// Its version.
    pub version: String,
    /// The commit of its sources; `null` if they were built without git.
    pub commit: Option<String>,
    /// Whether the sources had been changed since.
    pub modified: bool,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// The release of its Linux.
    pub kernel: String,
    /// What carries out the guest's instructions.
    pub kvm: Kvm,
}

/// A file that went into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// Its name, as it was given.
    pub name: String,
    /// XXH3 (128 bits) of what was in it, as `xxh128sum` prints it.
    pub hash: String,
}

impl Build {
    /// The `vmm` that runs this code.
    pub fn this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("VMM_COMMIT").map(str::to_owned),
            modified: option_env!("VMM_MODIFIED") == Some("true"),
        }
    }
}

impl Host {
    /// The host that this runs on, with a KVM of this kind.
    pub fn this(kvm: Kvm) -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease");
        Self {
            kernel: release.map_or_else(|_| "unknown".to_owned(), |it| it.trim().to_owned()),
            kvm,
        }
    }
}

impl Input {
    /// The file called `name`, with these bytes in it.
    pub fn new(name: &Path, bytes: &[u8]) -> Self {
        Self {
            name: name.to_string_lossy().into_owned(),
            hash: format!("{:032x}", xxh3_128(bytes)),
        }
    }

    /// The last part of its name.
    pub fn file_name(&self) -> &str {
        let last = Path::new(&self.name).file_name();
        last.and_then(|it| it.to_str()).unwrap_or(&self.name)
    }
}

/// This moment, as documents have it: in UTC, to the second.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

impl Provenance {
    /// The provenance of a run that starts now: of `guest` on `vcpus` vCPUs, with the words
    /// `given`, on a host whose KVM is of kind `kvm`.
    pub fn new(kvm: Kvm, guest: Input, vcpus: u32, given: &str) -> Self {
        Self {
            vmm: Build::this(),
            date: now(),
            host: Host::this(kvm),
            guest,
            initrd: None,
            vcpus,
            pin: None,
            given: given.trim().to_owned(),
            words: None,
            script: None,
            case: None,
        }
    }

    /// The options of the run, in one line: those that the guest took, or if it has not said, those
    /// that it was given.
    pub fn options(&self) -> String {
        match &self.words {
            Some(words) => {
                let words = words.iter().map(|(key, value)| format!("{key}={value}"));
                words.collect::<Vec<_>>().join(" ")
            }
            None => self.given.clone(),
        }
    }

    /// What ran, driven by what, and where: the title of a page.
    pub fn title(&self) -> String {
        let driver = self.script.as_ref().or(self.case.as_ref());
        let driver = driver.map_or_else(String::new, |it| format!("{} on ", it.file_name()));
        let given = match self.given.as_str() {
            "" => String::new(),
            given => format!(" ({given})"),
        };
        format!(
            "{driver}{}{given}, {}, {}",
            self.guest.file_name(),
            counted(self.vcpus.into(), "vCPU"),
            self.host
        )
    }

    /// All of it but the number of vCPUs, for people: names and values.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let options = match (&self.words, self.given.as_str()) {
            (Some(_), _) => self.options(),
            (None, "") => "none given".to_owned(),
            (None, given) => format!("{given} (as given)"),
        };
        let mut facts = vec![
            ("vmm", format!("{}, {}", self.vmm, self.date)),
            ("host", self.host.to_string()),
            ("guest", self.guest.to_string()),
        ];
        facts.extend((self.initrd.as_ref()).map(|initrd| ("initrd", initrd.to_string())));
        facts.push(("words", options));
        facts.extend(self.pin.clone().map(|cpus| ("pinned to", cpus)));
        let inputs = [("script", &self.script), ("case", &self.case)];
        facts.extend(inputs.iter().filter_map(|(what, input)| {
            let input = input.as_ref()?;
            Some((*what, input.to_string()))
        }));
        facts
    }
}

fn short(digits: &str) -> &str {
    digits.get(..DIGITS).unwrap_or(digits)
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.commit {
            Some(commit) => write!(f, "{} (commit {}", self.version, short(commit))?,
            None => write!(f, "{} (commit unknown", self.version)?,
        }
        f.write_str(if self.modified { ", modified)" } else { ")" })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {}, {}", self.kernel, self.kvm)
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = spell_out_all(&self.name);
        write!(f, "{name} (hash {})", short(&self.hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_all_that_is_known() {
        let guest = Input::new(Path::new("guest.bin"), b"image");
        let mut provenance = Provenance::new(Kvm::Svm, guest.clone(), 2, " queue=fifo ");
        let told = |provenance: &Provenance| {
            let facts = provenance.facts().into_iter();
            let lines = facts.map(|(name, fact)| format!("{name} {fact}"));
            lines.collect::<Vec<_>>().join("\n")
        };
        assert!(told(&provenance).contains("words queue=fifo (as given)"));
        let words = [("queue", "fifo"), ("seed", "1")];
        provenance.words = Some(words.map(|(key, value)| (key.into(), value.into())).into());
        let title = provenance.title();
        assert!(
            title.starts_with("guest.bin (queue=fifo), 2 vCPUs, Linux "),
            "{title}"
        );
        provenance.script = Some(Input::new(Path::new("stories/story.rhai"), b""));
        let title = provenance.title();
        assert!(
            title.starts_with("story.rhai on guest.bin (queue=fifo), 2 vCPUs"),
            "{title}"
        );
        let told = told(&provenance);
        for part in [
            env!("CARGO_PKG_VERSION"),
            "KVM on SVM",
            "guest.bin (hash ",
            short(&guest.hash),
            "words queue=fifo seed=1",
            "script stories/story.rhai (hash 99aa06d30147)",
        ] {
            assert!(told.contains(part), "no {part}: {told}");
        }
    }

    #[test]
    fn the_version_names_the_commit() {
        let Build {
            version, commit, ..
        } = Build::this();
        assert!(VERSION.starts_with(&version), "{VERSION}");
        let commit = commit.unwrap_or_else(|| "commit unknown".to_owned());
        assert!(VERSION.contains(&commit), "{VERSION}");
    }
}
