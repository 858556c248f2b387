//! Searches with a limit on memory: they come to what a search without one comes to, or stop and say
//! why, whatever becomes of the disk.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use tests::{Run, mounts, need_kvm, skip};

use super::explore::{COMPLETE_SC, SHRINKING_MASK, Workspace};

/// Some thousands of states.
const OPTIONS: &str = "--memory sc --append queue=counters --strategy";

/// What a search has said it has searched: states, ends and steps.
fn searched(run: &Run) -> Vec<u64> {
    let line = run.stdout.lines().find(|line| line.starts_with("searched"));
    let numbers = line.unwrap_or_default().split([' ', ',']);
    let numbers: Vec<_> = numbers.filter_map(|word| word.parse().ok()).collect();
    numbers[..3].to_vec()
}

/// How many MiB the process had with everything else on disk, as it says when that is too much.
fn needed(workspace: &Workspace, options: &str) -> u64 {
    let run = workspace
        .explore(options)
        .args(["--memory-limit", "1M"])
        .run();
    run.ends_with(5).says("MiB of memory (--memory-limit)");
    let (before, _) = run
        .stdout
        .split_once(" MiB of memory")
        .expect("it was said");
    let number = before.rsplit(' ').next().and_then(|word| word.parse().ok());
    number.expect("a number")
}

#[test]
fn a_search_within_a_limit_comes_to_the_same() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    for how in ["races", "exhaustive --jobs 2"] {
        let options = format!("{OPTIONS} {how}");
        let without = workspace.explore(&options).run();
        without.ends_with(0).says(COMPLETE_SC);
        let needs = needed(&workspace, &options);
        // Of the limits that are enough, some is so low that states are paged out: the table alone
        // takes some ten mebibytes, and what else a search takes grows by less.
        let mut is_paged_out = false;
        for more in [14, 11, 8, 5, 2] {
            let run = workspace
                .explore(&options)
                .args(["--memory-limit", &format!("{}M", needs + more)])
                .args(["--log", "debug"])
                .run();
            if run.status() == 5 {
                run.says("MiB of memory (--memory-limit)");
                break;
            }
            run.ends_with(0).says(COMPLETE_SC);
            // Of two machines, who goes first decides how many steps there are.
            let same = if how.contains("jobs") { 2 } else { 3 };
            assert_eq!(searched(&run)[..same], searched(&without)[..same], "{how}");
            is_paged_out = run.stderr.contains("states were paged out");
            if is_paged_out {
                break;
            }
        }
        assert!(is_paged_out, "{how} with {needs} MiB besides");
    }
}

#[test]
fn where_no_files_can_be_made_no_search_begins() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let files = "--memory-limit 1G --memory-files";
    for nowhere in ["/not/there", "/proc"] {
        let run = workspace.explore(files).arg(nowhere).run();
        run.ends_with(2).complains_of(nowhere);
    }
    workspace
        .explore("--memory-files /var/tmp")
        .run()
        .ends_with(2);
    for size in ["5", "0G", "much"] {
        let run = workspace.explore("--memory-limit").arg(size).run();
        run.ends_with(2).complains_of("500M");
    }
}

/// A process whose `/mnt` has room for a mebibyte.
fn with_a_small_disk() -> io::Result<()> {
    // SAFETY: has no preconditions and cannot fail.
    mounts::own(unsafe { libc::geteuid() } != 0)?;
    mounts::mount_with(c"tmpfs", c"/mnt", c"size=1m")
}

/// A process whose files may not be larger than 16 KiB.
fn with_small_files() -> io::Result<()> {
    let size = libc::rlimit {
        rlim_cur: 16 << 10,
        rlim_max: 16 << 10,
    };
    // SAFETY: it is given a limit, which it only reads.
    match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[test]
fn a_full_disk_stops_a_search_without_a_verdict() {
    need_kvm();
    let workspace = Workspace::with(SHRINKING_MASK);
    let changes = [
        (
            with_a_small_disk as fn() -> io::Result<()>,
            "/mnt",
            "No space left",
        ),
        (with_small_files, "/var/tmp", "File too large"),
    ];
    for (change, files, why) in changes {
        let mut probe = Command::new("true");
        // SAFETY: the change makes system calls only and allocates nothing.
        unsafe { probe.pre_exec(change) };
        if let Err(error) = probe.status() {
            skip(&format!("this user cannot make a disk small: {error}"));
            continue;
        }
        let options = format!("{OPTIONS} races --memory-limit 1G --memory-files {files}");
        let mut explore = workspace.explore(&options);
        // SAFETY: as above.
        unsafe { explore.command().pre_exec(change) };
        let run = explore.run();
        run.ends_with(5)
            .says("there was no room left for more states")
            .says(&format!("{files} has no room for"))
            .says(why);
        assert!(searched(&run)[0] > 0);
    }
}
