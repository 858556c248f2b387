//! How pages are laid out in a real browser: that nothing is printed over something else, stands
//! out of its box or makes the page wider than the window, in narrow and wide windows, light and
//! dark; and that what is written there says what it should. Asserts what is drawn, not pixels.
//!
//! `make test-browser` prepares a browser and runs these tests.

use std::path::Path;

use serde_json::{Value, json};
use tests::browser::{Page, Written};
use tests::{Vmm, open_kvm, skip};
use vmm::report::page;

/// What is drawn wrongly on a page that lies in `lanes`, sections and tables, in sentences.
const PROBLEMS: &str = r"(() => {
  const problems = [];
  const box = (it) => it.getBoundingClientRect();
  const told = (it) => `'${it.textContent.trim().slice(0, 40)}'`;
  const meet = (a, b) =>
    a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 0.5 && b.top < a.bottom - 0.5;
  const within = (a, b) =>
    a.left > b.left - 1 && a.right < b.right + 1 && a.top > b.top - 1 && a.bottom < b.bottom + 1;
  const { scrollWidth } = document.documentElement;
  if (scrollWidth > window.innerWidth) problems.push(`the page is ${scrollWidth} pixels wide`);
  for (const picture of document.querySelectorAll('svg')) {
    const texts = [...picture.querySelectorAll('text')];
    texts.forEach((one, at) => {
      if (!within(box(one), box(picture))) problems.push(`${told(one)} stands out of its picture`);
      for (const other of texts.slice(at + 1)) {
        if (meet(box(one), box(other))) problems.push(`${told(one)} is printed over ${told(other)}`);
      }
    });
  }
  for (const it of document.querySelectorAll('h1, h2, h3, p, dt, dd, li, summary, button, label, th, td, output')) {
    const range = document.createRange();
    range.selectNodeContents(it);
    const text = range.getBoundingClientRect();
    // What is not shown has no size, and what can be scrolled may be wider.
    if (text.width === 0 || it.closest('.wide, #diagram, pre')) {
      if (it.matches('td, th') && text.width > 0 && !within(text, box(it))) problems.push(`${told(it)} stands out of its cell`);
      continue;
    }
    if (text.left < -0.5 || text.right > window.innerWidth + 0.5) problems.push(`${told(it)} is cut off`);
  }
  const chart = typeof shown === 'object' && shown.chart;
  if (chart) {
    const texts = [];
    const { context } = chart;
    const draw = context.fillText;
    context.fillText = (text, x, y, room = Infinity) => {
      const width = Math.min(context.measureText(text).width, room);
      const left = context.textAlign === 'right' ? x - width : x;
      texts.push({ text, left, right: left + width, top: y - 5, bottom: y + 5 });
    };
    chart.draw();
    context.fillText = draw;
    chart.draw();
    texts.forEach((one, at) => {
      if (one.left < 0 || one.right > chart.width) problems.push(`'${one.text}' stands out of the timeline`);
      for (const other of texts.slice(at + 1)) {
        if (meet(one, other)) problems.push(`'${one.text}' is printed over '${other.text}' in the timeline`);
      }
    });
    if (texts.length === 0) problems.push('the timeline has no text');
  }
  return problems;
})()";

/// The sizes of windows: a telephone, a laptop, a large screen.
const WINDOWS: [(u32, u32); 3] = [(390, 844), (1100, 800), (1600, 1000)];

/// Checks a page in windows of all sizes, light and dark.
#[track_caller]
fn is_well_laid_out(written: &Written) {
    for (width, height) in WINDOWS {
        let mut page = Page::open(&written.path(), width, height);
        for scheme in ["light", "dark"] {
            page.prefer(scheme);
            let problems = page.evaluate(PROBLEMS);
            assert_eq!(problems, json!([]), "{width} pixels, {scheme}");
        }
        page.is_quiet();
    }
}

/// Where the host has a KVM, the page of a run that ends with `status`.
fn page_of(vmm: impl FnOnce() -> Vmm, status: i32) -> Option<Written> {
    if open_kvm().is_err() {
        skip("there is no page of a run to look at: there is no /dev/kvm");
        return None;
    }
    let written = Written::nowhere();
    vmm()
        .arg("--report")
        .arg(written.path())
        .run()
        .ends_with(status);
    Some(written)
}

fn scenario(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../scenarios")
        .join(name)
}

/// A page without a machine, which has all functions of the scripts.
fn empty() -> Written {
    let mut bytes = Vec::new();
    page::write(&mut bytes, &[], Some("no machine")).expect("memory takes all");
    Written::of(&bytes)
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn the_page_of_a_run_is_well_laid_out_and_says_what_ran() {
    let run = || Vmm::boot("--vcpus 4").args(["--append", "workload=selftest seed=7"]);
    let Some(written) = page_of(run, 0) else {
        return;
    };
    is_well_laid_out(&written);
    let mut page = Page::open(&written.path(), 1600, 1000);
    let title = page.text("document.title");
    let what = page.text("document.querySelector('h1').innerText");
    assert_eq!(title, format!("pass: {what}"));
    for part in ["guest.bin (workload=selftest seed=7)", "4 vCPUs", "Linux "] {
        assert!(what.contains(part), "{what}");
    }
    // Times in a table have one unit, which is said once.
    let cells =
        "[...document.querySelectorAll('#latencies td, #matrix td, #longest td:nth-child(n+4)')]";
    let cells = page.text(&format!("{cells}.map((it) => it.innerText).join(' ')"));
    assert!(!cells.contains("µs") && !cells.contains("ms"), "{cells}");
    let head = page.text("document.querySelector('#latencies th').innerText");
    assert!(head.starts_with("in "), "{head}");
    // Three histograms, whose axes have one unit each.
    let units = "[...document.querySelectorAll('#histograms svg')].map((it) => \
        new Set([...it.querySelectorAll('text')].map((it) => it.textContent.match(/ ([nµm]?s)$/)?.[1])\
        .filter(Boolean)).size)";
    assert_eq!(page.evaluate(units), json!([1, 1, 1]));
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn a_script_is_in_the_title_and_what_is_found_is_in_the_legend() {
    let story = || {
        let vmm = Vmm::boot("--append queue=fifo").arg("--script");
        vmm.arg(scenario("mckenney-2009.rhai"))
    };
    let Some(written) = page_of(story, 0) else {
        return;
    };
    is_well_laid_out(&written);
    let mut page = Page::open(&written.path(), 1600, 1000);
    let title = page.text("document.title");
    assert!(
        title.starts_with("pass: mckenney-2009.rhai on guest.bin (queue=fifo"),
        "{title}"
    );
    let pins = page.number("shown.timeline.marks.length");
    let legend = page.text("document.querySelector('#legend .pins').innerText");
    assert!(
        pins > 0.0 && legend.contains(&format!("{pins} finding")),
        "{legend}"
    );
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn a_time_limit_is_no_failure_of_the_guest() {
    let long = || Vmm::boot("--vcpus 2 --timeout 1s").args(["--append", "workload=stress for=60s"]);
    let Some(written) = page_of(long, 5) else {
        return;
    };
    is_well_laid_out(&written);
    let mut page = Page::open(&written.path(), 1600, 1000);
    assert_eq!(
        page.text("document.querySelector('#result').innerText"),
        "time limit reached"
    );
    assert_eq!(page.text("document.querySelector('#result').className"), "");
    assert_eq!(
        page.evaluate("document.querySelector('#post-mortem').open"),
        false
    );
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn the_page_of_a_search_shows_the_case_as_it_is_written() {
    let image = tests::explore_image();
    if !image.exists() {
        skip("there is no page of a search to look at: there is no explore.bin");
        return;
    }
    let case = scenario("explore/shrinking-mask.case");
    let text = std::fs::read_to_string(&case).expect("a case");
    let search = || {
        let vmm = Vmm::with("explore").arg(&case).arg(&image);
        vmm.args(["--append", "mask-check=off"])
    };
    let Some(written) = page_of(search, 0) else {
        return;
    };
    is_well_laid_out(&written);
    let mut page = Page::open(&written.path(), 1600, 1000);
    assert!(text.starts_with("# "), "a case with a comment");
    assert_eq!(
        page.text("document.querySelector('#case').textContent"),
        text
    );
    let what = page.text("document.querySelector('h1').innerText");
    assert!(
        what.starts_with("shrinking-mask.case on explore.bin (mask-check=off"),
        "{what}"
    );
    page.is_quiet();
}

/// Of runs of two designs, and of two benches, whose figures have intervals.
#[test]
#[ignore = "needs a browser: make test-browser"]
fn the_page_of_a_comparison_says_what_differs_and_by_how_much() {
    if open_kvm().is_err() {
        skip("there is nothing to compare: there is no /dev/kvm");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let runs = ["queue=fifo", "queue=filo"].map(|queue| {
        let file = at(queue);
        let run = Vmm::boot("--vcpus 3 --stats json")
            .arg("--stats-file")
            .arg(&file);
        run.args(["--append", queue]).run().ends_with(0);
        file
    });
    let benches = ["16", "24"].map(|rounds| {
        let file = at(rounds);
        let some = "bench --runs 3 --to one --receiver halted --transport x2apic --rounds";
        let bench = Vmm::with(some).args([rounds, "--json"]).arg(&file);
        bench.arg(tests::guest()).run().ends_with(0);
        file
    });
    for ([a, b], of, differing) in [
        (runs, "Two runs", "word queue"),
        (benches, "Two benches", "rounds"),
    ] {
        let written = Written::nowhere();
        let compare = Vmm::new().arg("compare").arg(&a).arg(&b).arg("--html");
        compare.arg(written.path()).run().ends_with(0);
        is_well_laid_out(&written);
        let mut page = Page::open(&written.path(), 1600, 1000);
        let title = page.text("document.querySelector('#result').innerText");
        assert!(title.starts_with(of), "{title}");
        let differs = page.text("document.querySelector('#differs').innerText");
        assert!(differs.contains(differing), "{differs}");
        // What is equal in both is shown when it is asked for.
        let rows = "document.querySelectorAll('#figures tr').length";
        let (unequal, equal) = (page.number(rows), {
            page.evaluate("byId('equal').click()");
            page.number(rows)
        });
        assert!(0.0 < unequal && unequal < equal, "{unequal} of {equal}");
        page.is_quiet();
    }
}

/// Whatever the times are, names of quantiles and of powers of ten have room, and are as large.
#[test]
#[ignore = "needs a browser: make test-browser"]
fn nothing_in_a_histogram_is_printed_over_something_else() {
    const DRAWN: &str = r"(() => {
      const place = document.createElement('div');
      place.id = 'histograms';
      document.body.append(place);
      const sizes = new Set();
      let drawn = 0;
      for (const width of [250, 360, 560]) {
        for (const decades of [1, 2, 4, 7]) {
          for (const [p50, p90, p99] of [[0, 0, 0], [0.1, 0.12, 0.9], [0.5, 0.52, 0.54], [0.9, 0.97, 1], [0.1, 0.4, 1]]) {
            const ns = (share) => 10 ** (2 + decades * share * 0.99);
            const quantiles = [['p50', ns(p50)], ['p90', ns(p90)], ['p99', ns(p99)], ['p99.9', ns(1)]];
            const bins = [[20, 1], [10 * (2 + decades) - 1, 1234567]];
            const picture = drawHistogram({ bins, perDecade: 10, quantiles, title: '', width, unitOf });
            place.append(picture);
            drawn += 1;
            for (const text of picture.querySelectorAll('text')) sizes.add(Math.round(text.getBoundingClientRect().height));
          }
        }
      }
      return [drawn, sizes.size];
    })()";
    let mut page = Page::open(&empty().path(), 800, 800);
    assert_eq!(page.evaluate(DRAWN), json!([60, 1]));
    assert_eq!(page.evaluate(PROBLEMS), json!([]));
    // What the checks are for.
    page.evaluate(
        "(([one, other]) => other.setAttribute('x', one.getAttribute('x')))\
         (document.querySelectorAll('#histograms svg:last-child .name'))",
    );
    let problems: Value = page.evaluate(PROBLEMS);
    assert!(problems.as_array().is_some_and(|all| !all.is_empty()));
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn times_that_stand_together_have_one_unit() {
    let mut page = Page::open(&empty().path(), 800, 800);
    let mut shown = |times: &str| {
        let shown = format!(
            "(() => {{ const unit = unitOf({times}); \
             return [unit.name, ...{times}.map(unit.figure)].join(' ') }})()"
        );
        page.text(&shown)
    };
    assert_eq!(shown("[116e3, 11.1e6, 79.4e6]"), "ms 0.12 11.10 79.40");
    assert_eq!(shown("[20, 350, 2100]"), "ns 20 350 2,100");
    assert_eq!(shown("[5e3, 5e3, 2e9]"), "µs 5.0 5.0 2,000,000.0");
    assert_eq!(shown("[0, 30, 2e9, 3e9]"), "s 0.000 < 0.001 2.000 3.000");
    assert_eq!(shown("[0]"), "ns 0");
    let numbers = "[some(1, 'event'), some(2, 'event'), some(1, 'has', 'have')].join()";
    assert_eq!(page.text(numbers), "1 event,2 events,1 has");
}
