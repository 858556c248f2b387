//! The live table, on a terminal that is read as a user would see it.

use std::process::{Command, Stdio};

use tests::{Running, Vmm, need_kvm};

use super::terminal::Terminal;

/// The lines that are left when the command has ended.
fn end(terminal: &Terminal, running: Running, status: i32) -> Vec<String> {
    running.finish().ends_with(status);
    terminal.wait("the verdict", |lines| {
        lines.iter().any(|line| line.starts_with("interrupted: "))
    })
}

/// The entry in the column with that title, in the line that begins with that name, of the last
/// table on the screen. If the terminal became narrower, parts of an earlier table can remain
/// above.
fn figure(lines: &[String], name: &str, column: &str) -> Option<f64> {
    let titles: Vec<_> = lines
        .iter()
        .rfind(|line| line.starts_with(" CPU  state"))?
        .split_whitespace()
        .rev()
        .collect();
    let from_right = titles.iter().position(|title| *title == column)?;
    let line = lines
        .iter()
        .rfind(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().rev().nth(from_right)?.parse().ok()
}

fn is_table(line: &str) -> bool {
    line.starts_with(" CPU  state") || line.starts_with(" sum ") || line.contains(" vCPUs: ")
}

fn stress(options: &str) -> Vmm {
    Vmm::with("--watch --watchdog 0")
        .args(options.split_whitespace())
        .args(["--append", "workload=stress for=600s"])
        .arg(tests::guest())
}

#[test]
fn the_table_shows_every_vcpu_and_goes_away() {
    need_kvm();
    let mut terminal = Terminal::new(100, 140);
    let running = terminal.start(stress("--vcpus 3"));
    let lines = terminal.wait("traffic", |lines| {
        figure(lines, "sum", "IPIs/s") > Some(0.0) && figure(lines, "2", "calls/s") > Some(0.0)
    });
    assert!(
        lines.iter().any(|line| line.contains(" s, 3 vCPUs: ")),
        "{lines:#?}"
    );
    // The rates of all vCPUs and their sum are from the same moment; both are rounded.
    for column in ["IPIs/s", "received/s", "user/s", "calls/s"] {
        let of = |name: &str| figure(&lines, name, column).unwrap_or_else(|| panic!("{lines:#?}"));
        let each: f64 = ["0", "1", "2"].map(of).iter().sum();
        assert!((of("sum") - each).abs() <= 3.0, "{column}: {lines:#?}");
    }
    // There is only one table, however often it was drawn, and the console output is above it.
    let headers = |lines: &[String]| {
        lines
            .iter()
            .filter(|it| it.starts_with(" CPU  state"))
            .count()
    };
    assert_eq!(headers(&lines), 1, "{lines:#?}");
    let console = lines.iter().position(|line| line.contains("3 CPUs up"));
    let table = lines.iter().position(|line| is_table(line));
    assert!(console.is_some() && console < table, "{lines:#?}");

    running.signal(libc::SIGINT);
    let left = end(&terminal, running, 130);
    assert!(
        left.iter().any(|line| line.contains("3 CPUs up")),
        "{left:#?}"
    );
    assert!(
        !left.iter().any(|line| line.contains(" s, 3 vCPUs: ")),
        "{left:#?}"
    );
    assert!(
        left.iter().any(|line| line.starts_with("vCPUs      3")),
        "{left:#?}"
    );
    // A count of exits that the report leaves out was not shown in the table either. The table may
    // not know yet that it can be believed.
    let is_unknown = left
        .iter()
        .any(|line| line.contains("exits/IPI  not known"));
    let exits = figure(&lines, "0", "exits/s");
    assert!(exits.is_none() || !is_unknown, "{lines:#?} {left:#?}");
    let parser = terminal.screen.0.lock().expect("no panic");
    assert!(!parser.screen().hide_cursor(), "the cursor is there again");
}

#[test]
fn a_terminal_can_be_too_small_and_change_its_size() {
    need_kvm();
    let mut terminal = Terminal::new(9, 100);
    let running = terminal.start(stress("--vcpus 8"));
    let more = |lines: &[String]| lines.iter().any(|line| line.contains("4 more"));
    let lines = terminal.wait("a line for four", more);
    assert!(figure(&lines, "2", "IPIs/s").is_some(), "{lines:#?}");
    assert!(figure(&lines, "sum", "IPIs/s").is_some(), "{lines:#?}");
    terminal.resize(30, 100);
    terminal.wait("a line for each", |lines| {
        !more(lines) && figure(lines, "7", "IPIs/s").is_some()
    });
    terminal.resize(6, 30);
    terminal.wait("a table that fits", |lines| {
        lines.iter().any(|line| line.contains("7 more"))
    });
    terminal.resize(40, 120);
    terminal.wait("all of it again", |lines| {
        figure(lines, "7", "calls/s").is_some()
    });
    running.signal(libc::SIGTERM);
    end(&terminal, running, 143);
}

#[test]
fn the_console_and_the_table_do_not_garble_each_other() {
    need_kvm();
    let script = r#"
        boot(#{ vcpus: 3, append: "workload=puppet" });
        cpu(1).hold_at("queue.visit");
        cpu(0).call_many([1, 2], nowait);
        for line in 0..200 { print(`line ${line} of the console`); }
        print("\x1b[2J\x1b[Hclear");
        cpu(1).wait_held();
        loop { cpu(0).call_single(0, wait).wait_done(); }
    "#;
    let mut terminal = Terminal::new(24, 100);
    let vmm = Vmm::scripted(script).arg("--watch");
    let running = terminal.start(vmm);
    let lines = terminal.wait("a held CPU", |lines| {
        lines
            .iter()
            .any(|line| line.starts_with("   1  held at queue.visit"))
    });
    let at = |text: &str| lines.iter().position(|line| line.contains(text));
    // The guest's output is above, complete and in order, and has cleared nothing.
    let first = at("line 190 of").unwrap_or_else(|| panic!("{lines:#?}"));
    for number in 190..200 {
        let line = &lines[first + number - 190];
        assert_eq!(
            line.trim_end(),
            format!("line {number} of the console"),
            "{lines:#?}"
        );
    }
    assert_eq!(
        lines[first + 10].trim_end(),
        "\\u{1b}[2J\\u{1b}[Hclear",
        "{lines:#?}"
    );
    let title = &lines[first + 11];
    assert!(
        title.contains(" s, 3 vCPUs: ") && title.contains("1 held"),
        "{lines:#?}"
    );
    running.signal(libc::SIGINT);
    end(&terminal, running, 130);
    let screen = terminal
        .screen
        .0
        .lock()
        .expect("no panic")
        .screen()
        .contents();
    assert!(!screen.contains("IPIs/s"), "{screen}");
}

#[test]
fn what_a_script_prints_goes_where_standard_output_does() {
    need_kvm();
    let script = r#"
        boot(#{ vcpus: 1, append: "workload=puppet" });
        print("\x1b[1mbold\tand\rbroken");
        loop { cpu(0).call_single(0, wait).wait_done(); }
    "#;
    let mut terminal = Terminal::new(24, 100);
    let theirs = terminal.theirs.take().expect("nobody else has it");
    let mut vmm = Vmm::scripted(script).arg("--watch");
    vmm.command()
        .stderr(Stdio::from(theirs))
        .env("TERM", "xterm");
    let running = vmm.start();
    terminal.wait("traffic", |lines| {
        figure(lines, "sum", "calls/s") > Some(0.0)
    });
    running.wait_for("\\u{1b}[1mbold\tand\\rbroken\n");
    running.signal(libc::SIGINT);
    running.finish().ends_with(130);
}

#[test]
fn without_a_terminal_there_is_no_table() {
    need_kvm();
    let run = Vmm::boot("--watch").run();
    run.ends_with(2).complains_of("--watch draws on a terminal");
    // A terminal without cursor control gets no live table either.
    let mut terminal = Terminal::new(24, 80);
    let theirs = terminal.theirs.take().expect("nobody else has it");
    let mut command = Command::new(tests::vmm());
    command
        .arg("--watch")
        .arg(tests::guest())
        .env("TERM", "dumb");
    let mut vmm = Vmm::from(command);
    vmm.command().stderr(Stdio::from(theirs));
    vmm.run().ends_with(2);
    terminal.wait("a reason", |lines| {
        lines
            .iter()
            .any(|line| line.contains("standard error is none"))
    });
}
