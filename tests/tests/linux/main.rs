//! Bugs planted in copies of Linux's kernel/smp.c, one at a time: each is built, and `vmm explore` has to find it, where
//! without the bug the same case is complete. And what `guest/linux/build` does with a tree that is none, or that
//! needs what there is not. The trees are those that `make linux-images` has fetched; without them, or without a C
//! compiler, there is nothing to test.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;
use tests::{Vmm, guest, need_kvm, skip};

/// A search on a busy host.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Debian's kernels that are tried, from `LINUX_VERSIONS` such as `6.1 6.12`.
fn versions() -> Vec<String> {
    let versions = env::var("LINUX_VERSIONS").unwrap_or_else(|_| "6.12".to_owned());
    versions.split_whitespace().map(str::to_owned).collect()
}

/// The text for this version of kernel/smp.c, which calls functions by another one since 6.4.
fn of_version(version: &str, text: &str) -> String {
    let (call, here, late) = match version {
        "6.1" => ("func(info)", "func(info)", "csd->func(csd->info)"),
        _ => (
            "csd_do_func(func, info, csd)",
            "csd_do_func(func, info, NULL)",
            "csd_do_func(csd->func, csd->info, csd)",
        ),
    };
    text.replace("CALL_HERE", here)
        .replace("CALL;", &format!("{call};"))
        .replace("LATE;", &format!("{late};"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The tree of this version, if it is there.
fn tree(version: &str) -> Option<PathBuf> {
    let tree = guest().with_file_name("linux").join(version);
    let is_there = tree.join("kernel/smp.c").is_file();
    if !is_there {
        skip(&format!(
            "Linux {version}: its tree is not in target/linux; make linux-images says why"
        ));
    }
    is_there.then_some(tree)
}

/// Builds the guest of this tree in `directory`.
fn build(tree: &Path, directory: &Path, words: &[(&str, &str)]) -> Output {
    let build = root().join("guest/linux/build");
    let mut command = Command::new(build);
    command.arg("-o").arg(directory.join("a")).arg(tree);
    command.envs(words.iter().copied());
    command.output().expect("a shell")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A copy of the tree in which the file at `path` has the text `after` in the place of `before`.
fn changed(tree: &Path, copy: &Path, path: &str, before: &str, after: &str) {
    // All but the folders above that file are links.
    let mut folder = PathBuf::new();
    for part in Path::new(path).components() {
        fs::create_dir_all(copy.join(&folder)).expect("room for a folder");
        for entry in fs::read_dir(tree.join(&folder)).expect("a folder of the tree") {
            let name = entry.expect("an entry").file_name();
            if Path::new(&name) != Path::new(part.as_os_str()) {
                let from = fs::canonicalize(tree.join(&folder).join(&name)).expect("a path");
                symlink(from, copy.join(&folder).join(&name)).expect("room for a link");
            }
        }
        folder.push(part);
    }
    let text = fs::read_to_string(tree.join(path)).expect("a file of the tree");
    assert_eq!(text.matches(before).count(), 1, "{path}: {before}");
    fs::write(copy.join(path), text.replace(before, after)).expect("room for a file");
}

/// Explores `case`, which is written to `directory`, on this image.
fn explore(directory: &Path, image: &Path, case: &str) -> tests::Run {
    let file = directory.join("a.case");
    fs::write(&file, case).expect("room for a case");
    Vmm::with("explore")
        .arg(&file)
        .arg(image)
        .args(["--shorten", "1s"])
        .limit(TIME_LIMIT)
        .run()
}

/// The images `a` of a copy of this version's tree, if there is one, in which `before` is `after` in the
/// file at `path`.
fn planted(version: &str, path: &str, before: &str, after: &str) -> Option<TempDir> {
    let tree = tree(version)?;
    let [before, after] = [before, after].map(|text| of_version(version, text));
    let directory = TempDir::new().expect("a temporary directory");
    let copy = directory.path().join("tree");
    changed(&tree, &copy, path, &before, &after);
    let built = build(&copy, directory.path(), &[]);
    assert!(built.status.success(), "{version}: {}", said(&built));
    Some(directory)
}

/// What is found of a bug in the file at `path` of every version, and nothing without it.
fn finds(path: &str, before: &str, after: &str, case: &str, found: &str) {
    need_kvm();
    for version in versions() {
        let Some(directory) = planted(&version, path, before, after) else {
            continue;
        };
        let case = format!("{case}expect {found}\n");
        let broken = directory.path().join("a-explore.bin");
        let run = explore(directory.path(), &broken, &case);
        run.ends_with(0).says("as expected: ");
        // The same case, without the bug.
        let sound = guest().with_file_name(format!("linux-{version}-explore.bin"));
        let run = explore(directory.path(), &sound, &case);
        run.ends_with(1).says("complete (x86-TSO, at every access)");
    }
}

#[test]
fn a_csd_that_is_unlocked_before_its_function_has_run() {
    finds(
        "kernel/smp.c",
        "\t\t\tCALL;\n\t\t\tcsd_unlock(csd);",
        "\t\t\tcsd_unlock(csd);\n\t\t\tCALL;",
        "cpus 2\n0: single 1 wait\n",
        "early-return",
    );
}

/// Not by a search: on real vCPUs, by random calls, which find it within a few.
#[test]
fn the_stress_finds_a_csd_that_is_unlocked_before_its_function_has_run() {
    need_kvm();
    for version in versions() {
        let before = "\t\t\tCALL;\n\t\t\tcsd_unlock(csd);";
        // Long enough for the caller to see it, whoever runs.
        let after = "\t\t\tcsd_unlock(csd);\n\t\t\tfor (int n = 0; n < 3000; n++)\n\t\t\t\tcpu_relax();\n\t\t\tCALL;";
        let Some(directory) = planted(&version, "kernel/smp.c", before, after) else {
            continue;
        };
        let words = "workload=stress calls=8 weight_single_wait=1";
        let run = Vmm::with("--vcpus 2")
            .args(["--append", words])
            .arg(directory.path().join("a.bin"))
            .limit(TIME_LIMIT)
            .run();
        run.ends_with(1)
            .says("returned before it had run everywhere")
            .says("did not find what the function had written");
    }
}

#[test]
fn a_cpu_that_a_call_to_several_leaves_out() {
    finds(
        "kernel/smp.c",
        "__cpumask_clear_cpu(this_cpu, cfd->cpumask);",
        "__cpumask_clear_cpu(this_cpu, cfd->cpumask);\n\t\t__cpumask_clear_cpu(2, cfd->cpumask);",
        "cpus 3\n0: many 1,2 wait\n",
        "wrong-targets",
    );
}

#[test]
fn a_csd_that_is_taken_for_a_call_to_one_while_it_is_locked() {
    finds(
        "kernel/smp.c",
        "csd = this_cpu_ptr(&csd_data);\n\t\tcsd_lock(csd);",
        "csd = this_cpu_ptr(&csd_data);\n\t\tcsd->node.u_flags |= CSD_FLAG_LOCK;",
        "cpus 3\n0: single 1; single 2\n",
        "warned, lost, duplicate, wrong-cpu, stale-argument, hang, livelock",
    );
}

#[test]
#[ignore = "one more of its kind: make test-long"]
fn a_csd_that_is_taken_for_a_call_to_many_while_it_is_locked() {
    finds(
        "kernel/smp.c",
        "csd_lock(csd);\n\t\t\tif (wait)",
        "csd->node.u_flags |= CSD_FLAG_LOCK;\n\t\t\tif (wait)",
        "cpus 3\n0: many 1,2; many 1,2\n",
        "warned, lost, duplicate, wrong-cpu, stale-argument, hang, livelock",
    );
}

/// It can be the owner's next call by then.
#[test]
fn a_function_that_is_read_after_its_csd_was_unlocked() {
    finds(
        "kernel/smp.c",
        "csd_unlock(csd);\n\t\t\t\tCALL;",
        "csd_unlock(csd);\n\t\t\t\tLATE;",
        "cpus 2\n0: single 1; single 1\n",
        "duplicate, lost",
    );
}

#[test]
fn a_queue_to_which_is_added_in_two_steps() {
    finds(
        "lib/llist.c",
        "} while (!try_cmpxchg(&head->first, &first, new_first));",
        "} while (0);\n\tWRITE_ONCE(head->first, new_first);",
        "cpus 3\n0: single 2\n1: single 2\n",
        "lost, accounting",
    );
}

#[test]
#[ignore = "one more of its kind: make test-long"]
fn a_queue_that_is_taken_in_two_steps() {
    finds(
        "include/linux/llist.h",
        "return xchg(&head->first, NULL);",
        "struct llist_node *first = READ_ONCE(head->first);\n\n\tWRITE_ONCE(head->first, NULL);\n\treturn first;",
        "cpus 3\n0: single 2\n1: single 2\n",
        "lost, accounting",
    );
}

/// A CPU whose claim fails, since the work is pending, relies on the work to see what it has stored before. Only
/// store buffers show that.
#[test]
fn a_work_that_runs_before_its_pending_bit_is_seen_to_be_clear() {
    finds(
        "kernel/irq_work.c",
        "\tsmp_mb();\n\n\tlockdep_irq_work_enter",
        "\tlockdep_irq_work_enter",
        "cpus 3\n0: wish 2\n1: wish 2\n",
        "unserved",
    );
}

#[test]
fn a_work_that_is_freed_while_another_cpu_claims_it() {
    finds(
        "kernel/irq_work.c",
        "(void)atomic_cmpxchg(&work->node.a_flags, flags, flags & ~IRQ_WORK_BUSY);",
        "atomic_set(&work->node.a_flags, flags & ~IRQ_WORK_BUSY);",
        "cpus 3\n0: wish 2; wish 2\n1: wish 2\n",
        "livelock, unserved, hang",
    );
}

#[test]
#[ignore = "one more of its kind: make test-long"]
fn a_work_that_is_claimed_in_two_steps() {
    finds(
        "kernel/irq_work.c",
        "oflags = atomic_fetch_or(IRQ_WORK_CLAIMED | CSD_TYPE_IRQ_WORK, &work->node.a_flags);",
        "oflags = atomic_read(&work->node.a_flags);\n\
         \tatomic_set(&work->node.a_flags, oflags | IRQ_WORK_CLAIMED | CSD_TYPE_IRQ_WORK);",
        "cpus 3\n0: wish 2\n1: wish 2\n",
        "livelock, unserved, hang",
    );
}

#[test]
fn a_function_that_runs_with_interrupts_enabled() {
    finds(
        "kernel/smp.c",
        "local_irq_save(flags);\n\t\tCALL_HERE;\n\t\tcsd_lock_record(NULL);\n\t\tlocal_irq_restore(flags);",
        "(void)flags;\n\t\tCALL_HERE;\n\t\tcsd_lock_record(NULL);",
        "cpus 2\n0: single 0 wait\n",
        "interrupts-on",
    );
}

/// Its interrupt can come later than the CPU has its interrupts off for good.
#[test]
fn a_cpu_that_leaves_without_a_look_at_its_queue() {
    finds(
        "kernel/smp.c",
        "\t__flush_smp_call_function_queue(false);\n\tirq_work_run();",
        "\tirq_work_run();",
        "cpus 2\n0: single 1; offline 1\n",
        "lost",
    );
}

/// It can have changed meanwhile, and whoever asked it first goes on as if the call were made.
#[test]
#[ignore = "one more of its kind: make test-long"]
fn a_condition_that_is_asked_twice() {
    finds(
        "kernel/smp.c",
        "if (cond_func && !cond_func(cpu, info))",
        "if (cond_func && !(cond_func(cpu, info) && cond_func(cpu, info)))",
        "cpus 2\n0: cond 1 0 wait\n1: set 0 2; set 0 0\n",
        "early-return",
    );
}

#[test]
fn a_task_that_is_dropped_from_the_queue_behind_another_one() {
    finds(
        "kernel/smp.c",
        "if (type != CSD_TYPE_TTWU) {",
        "if (type != CSD_TYPE_TTWU || prev) {",
        "cpus 3\n0: wake 0 2\n1: wake 1 2\n",
        "lost",
    );
}

#[test]
fn the_watchdog_of_csd_locks_is_built_in_and_changes_nothing() {
    need_kvm();
    for version in versions() {
        let Some(tree) = tree(&version) else {
            continue;
        };
        let directory = TempDir::new().expect("a temporary directory");
        let built = build(&tree, directory.path(), &[("CSD_LOCK_WAIT_DEBUG", "1")]);
        assert!(built.status.success(), "{version}: {}", said(&built));
        let image = fs::read(directory.path().join("a.bin")).expect("an image");
        let name = b"csd_lock_wait_toolong";
        assert!(image.windows(name.len()).any(|it| it == name));
        let run = explore(
            directory.path(),
            &directory.path().join("a-explore.bin"),
            "cpus 2\n0: single 1 wait\n1: single 0\n",
        );
        run.ends_with(0).says("complete (x86-TSO, at every access)");
    }
}

#[test]
fn a_tree_that_needs_more_is_told_what_and_one_that_is_none_as_well() {
    let Some(tree) = tree("6.12") else {
        return;
    };
    let directory = TempDir::new().expect("a temporary directory");
    let copy = directory.path().join("tree");
    changed(
        &tree,
        &copy,
        "kernel/smp.c",
        "#include <linux/jump_label.h>\n",
        "#include <linux/jump_label.h>\n#include <linux/of_tomorrow.h>\n",
    );
    let built = build(&copy, directory.path(), &[]);
    assert!(!built.status.success());
    let text = said(&built);
    assert!(
        text.contains("  the header linux/of_tomorrow.h\n"),
        "{text}"
    );
    fs::remove_dir_all(&copy).expect("a folder");
    changed(
        &tree,
        &copy,
        "kernel/smp.c",
        "\tint err = 0;\n",
        "\tint err = of_tomorrow(csd) + TOMORROW;\n",
    );
    let text = said(&build(&copy, directory.path(), &[]));
    for line in ["  the function of_tomorrow()\n", "  the name TOMORROW\n"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(text.contains("Linux 6.12."), "{text}");
    let text = said(&build(directory.path(), directory.path(), &[]));
    assert!(
        text.contains("has no kernel/smp.c: it is no kernel tree"),
        "{text}"
    );
}
