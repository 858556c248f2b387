//! The page of a schedule in a real browser: what it draws, and that it answers to pointer and
//! keys, loads nothing and takes no string for markup. One page is of a real exploration where
//! there are a KVM and an image to explore.
//!
//! `make test-browser` prepares a browser and runs these tests.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use shared::manifest::VectorRole;
use tests::browser::{Page, Written};
use tests::{Vmm, open_kvm, skip};
use vmm::explore::naming::Word;
use vmm::explore::schedule::{FORM, Granularity, Schedule};
use vmm::explore::specimen::Signal;
use vmm::explore::story::{At, Beat, Flushed, Ipi, Mark, Scene, Story};
use vmm::manifest::Vector;
use vmm::report::page::story::{Document, Tone, write};

/// The word that all CPUs of a made story access, and change.
const SHARED: u64 = 0x1000;

/// The name of that word.
const NAME: &str = "GUEST.ipi.lock.held";

/// The text at the marked step of a made story.
const MARK: &str = "point of no return: store GUEST.ipi.lock.held; every order breaks from here on";

const CASE: &str = "cpus 2\n0: many 1\n";

/// A stop of a made story.
fn beat(what: &str, words: &[u64]) -> Beat {
    let word = |address: &u64| Word {
        address: *address,
        name: (*address == SHARED).then(|| NAME.to_owned()),
    };
    Beat {
        what: what.to_owned(),
        place: "guest/src/ipi/csd.rs:108".to_owned(),
        function: "lock<guest::metal::platform::Metal>".to_owned(),
        in_handler: false,
        words: words.iter().map(word).collect(),
        writes: what.starts_with("store"),
        sends: None,
        flushed: Vec::new(),
    }
}

/// A story of `rounds`, in each of which CPU 0 makes `own` stops on words of its own and then calls
/// CPU 1. The last IPI is not taken.
fn made(rounds: usize, own: u64) -> Story {
    let mut scenes = Vec::new();
    for round in 0..rounds {
        let mut beats: Vec<_> = (0..own)
            .map(|at| beat("load 0x2000", &[0x2000 + 8 * at]))
            .collect();
        beats.push(beat("store 0x1000", &[SHARED]));
        let sent = beats.len();
        beats.push(Beat {
            sends: Some(Ipi {
                target: 1,
                signal: Signal::Interrupt(0xfc),
            }),
            ..beat("send 0xfc to 1", &[])
        });
        beats.push(beat("load 0x1008", &[0x1008]));
        let scene = scenes.len();
        scenes.push(Scene {
            flushes: false,
            cpu: 0,
            takes: None,
            sent_by: Vec::new(),
            beats,
        });
        if round + 1 < rounds {
            scenes.push(Scene {
                flushes: false,
                cpu: 1,
                takes: Some(Signal::Interrupt(0xfc)),
                sent_by: vec![At { scene, beat: sent }],
                beats: vec![
                    Beat {
                        in_handler: true,
                        ..beat("load 0x1000", &[SHARED])
                    },
                    beat("idle", &[]),
                ],
            });
        }
    }
    Story {
        cpus: 2,
        scenes,
        breaks: vec!["lost".to_owned()],
        texts: vec!["call 0:0:1 never ran on a target".to_owned()],
        marks: vec![Mark {
            at: At {
                scene: 0,
                beat: sent_first(own),
            },
            text: MARK.to_owned(),
        }],
        vectors: vec![Vector {
            number: 0xfc,
            name: "many".to_owned(),
            role: VectorRole::Call,
            about: String::new(),
        }],
    }
}

/// The first IPI of a made story, behind so many stops and the store: what the store leads to.
fn sent_first(own: u64) -> usize {
    usize::try_from(own).expect("few stops") + 1
}

/// The page of `story`, on a `case`.
fn page_of(story: &Story, case: &str) -> Written {
    let schedule = Schedule {
        memory: vmm::explore::memory::Memory::Tso,
        buffered: Vec::new(),
        form: FORM.to_owned(),
        provenance: None,
        case: case.to_owned(),
        append: String::new(),
        granularity: Granularity::Access,
        image: "0".to_owned(),
        begins: "0".to_owned(),
        turns: Vec::new(),
        breaks: story.breaks.clone(),
        reaches: None,
        races: Vec::new(),
        point_of_no_return: None,
    };
    let document = Document {
        verdict: "broken: lost",
        what: "made.case on explore.bin".to_owned(),
        tone: Tone::Bad,
        guest: "explore.bin".to_owned(),
        facts: Vec::new(),
        case,
        schedule: Some(&schedule),
        story: Some(story),
    };
    let mut bytes = Vec::new();
    write(&mut bytes, &document).expect("memory takes all");
    Written::of(&bytes)
}

/// The page of a search which finds that CPUs leave a mask while it is read, and its schedule.
fn explored() -> (Written, Option<Value>) {
    let image = tests::explore_image();
    if open_kvm().is_err() || !image.exists() {
        skip(
            "the diagram in a browser is of a made story: there is no /dev/kvm, or no explore.bin",
        );
        return (page_of(&made(3, 2), CASE), None);
    }
    let written = Written::nowhere();
    let case =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/explore/shrinking-mask.case");
    let schedule = written.beside("schedule.json");
    let explored = Vmm::with("explore").arg(case).arg(image);
    explored
        .args(["--append", "mask-check=off", "--schedule"])
        .arg(&schedule)
        .arg("--report")
        .arg(written.path())
        .run()
        .ends_with(0);
    let schedule = fs::read_to_string(schedule).expect("a schedule");
    let schedule = serde_json::from_str(&schedule).expect("a schedule is JSON");
    (written, Some(schedule))
}

/// How many elements there are of a kind.
fn number_of(page: &mut Page, selector: &str) -> usize {
    page.number(&format!("document.querySelectorAll('{selector}').length")) as usize
}

/// The stops that are lit, by their places in the order of all.
fn lit(page: &mut Page) -> Value {
    page.evaluate(
        "[...document.querySelectorAll('.stop.lit')].map((row) => Number(row.dataset.id))",
    )
}

/// Where the row of a stop is in the window.
fn place(page: &mut Page, stop: usize) -> (f64, f64) {
    let row = format!("document.querySelector('.stop[data-id=\"{stop}\"]')");
    page.evaluate(&format!("{row}.scrollIntoView({{ block: 'center' }})"));
    page.settle();
    let what = format!("{row}.querySelector('.what').getBoundingClientRect()");
    (
        page.number(&format!("{what}.x")) + 4.0,
        page.number(&format!("{what}.y")) + 9.0,
    )
}

const TOLD: &str = "document.querySelector('#told').innerText";

#[test]
#[ignore = "needs a browser: make test-browser"]
fn a_page_shows_lanes_of_cpus_boxes_of_turns_and_every_stop() {
    let (written, schedule) = explored();
    let mut page = Page::open(&written.path(), 1300, 1000);
    let document = page.text("JSON.stringify(shown.document)");
    let document: Value = serde_json::from_str(&document).expect("it was JSON");
    let story = &document["story"];
    let scenes = story["scenes"].as_array().expect("scenes");
    let beats = |scene: &Value| scene["beats"].as_array().expect("beats").clone();
    let stops: Vec<_> = scenes.iter().flat_map(beats).collect();
    assert_eq!(number_of(&mut page, "#diagram .lane"), story["cpus"]);
    assert_eq!(number_of(&mut page, "#diagram .box"), scenes.len());
    assert_eq!(number_of(&mut page, "#diagram .stop"), stops.len());
    assert_eq!(number_of(&mut page, "#diagram circle"), stops.len());
    let body = page.text("document.body.innerText");
    for stop in &stops {
        let (what, place) = (&stop["what"], &stop["place"]);
        assert!(body.contains(what.as_str().expect("a text")), "{what}");
        assert!(body.contains(place.as_str().expect("a text")), "{place}");
    }
    for text in [&document["verdict"], &document["case"], &story["texts"][0]] {
        let text = text.as_str().expect("a text").trim();
        assert!(body.contains(text), "{text} is not in {body}");
    }
    if let Some(schedule) = schedule {
        assert_eq!(document["schedule"], schedule);
        assert_eq!(
            scenes.len(),
            schedule["turns"].as_array().expect("turns").len()
        );
    }
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn all_stops_on_a_word_light_up_with_one_of_them() {
    let (written, _) = explored();
    let mut page = Page::open(&written.path(), 1300, 1000);
    page.evaluate("globalThis.word = [...shown.diagram.shared][0]");
    let same = page.evaluate("shown.diagram.stops.words.get(word)");
    let first = same[0].as_u64().expect("a stop") as usize;
    assert!(same.as_array().is_some_and(|same| same.len() > 1), "{same}");
    let at = place(&mut page, first);
    assert_eq!(lit(&mut page), json!([]));
    page.pointer("mouseMoved", at, json!({}));
    assert_eq!(lit(&mut page), same);
    let told = page.text(TOLD);
    let address = page.text("`0x${word.toString(16)}`");
    let word = page.text("`at ${shown.diagram.stops.wordName(word)}`");
    assert!(word.contains(&address), "{word}");
    assert!(
        told.contains(&word) && told.contains("guest/src/"),
        "{told}"
    );
    page.pointer("mouseMoved", (1.0, 1.0), json!({}));
    assert_eq!(lit(&mut page), json!([]), "and go out with it");
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn words_have_their_names_and_addresses_in_the_line_below_and_in_the_table() {
    let written = page_of(&made(3, 1), CASE);
    let mut page = Page::open(&written.path(), 1300, 1000);
    page.evaluate("shown.diagram.keep(1)");
    let told = page.text(TOLD);
    assert!(told.contains("at GUEST.ipi.lock.held (0x1000)"), "{told}");
    page.evaluate("shown.diagram.keep(0)");
    let told = page.text(TOLD);
    assert!(told.contains("at 0x2000"), "it has no name: {told}");
    let row = page.text("document.querySelector('#words tbody tr').innerText");
    assert!(row.contains(NAME) && row.contains("0x1000"), "{row}");
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn the_point_of_no_return_stands_between_its_stops_whichever_are_shown() {
    let written = page_of(&made(3, 1), CASE);
    let mut page = Page::open(&written.path(), 1300, 1000);
    for which in ["all", "shared", "turns"] {
        page.evaluate(&format!("shown.diagram.draw('{which}')"));
        page.settle();
        assert_eq!(number_of(&mut page, "#diagram .row.mark"), 1, "{which}");
        assert_eq!(number_of(&mut page, "#diagram path.mark"), 1, "{which}");
    }
    page.evaluate("shown.diagram.draw('all')");
    let around = "(() => { const it = document.querySelector('.row.mark');
        return [it.previousSibling, it, it.nextSibling].map((row) => row.innerText); })()";
    let around = page.evaluate(around);
    let text = |row: usize| around[row].as_str().expect("a text").to_owned();
    assert!(text(0).contains("store"), "{around}");
    assert_eq!(text(1), MARK);
    assert!(text(2).contains("send"), "{around}");
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn a_function_is_shown_without_its_type_parameters() {
    let written = page_of(&made(1, 1), CASE);
    let mut page = Page::open(&written.path(), 1300, 1000);
    for (name, short) in [
        ("lock<guest::metal::platform::Metal>", "lock"),
        ("guest::Ipi<P,Vec<F>>::call", "guest::Ipi::call"),
        (
            "closure in guest::Ipi<P,F>::handle",
            "closure in guest::Ipi::handle",
        ),
        (
            "guest::hotplug::<impl guest::Ipi<P,F>>::wake",
            "guest::hotplug::<impl guest::Ipi>::wake",
        ),
        (
            "<guest::A as guest::B<P>>::call",
            "<guest::A as guest::B<P>>::call",
        ),
    ] {
        assert_eq!(page.text(&format!("shortName({name:?})")), short);
    }
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn an_ipi_leads_from_its_stop_to_the_turn_that_takes_it() {
    let written = page_of(&made(3, 1), CASE);
    let mut page = Page::open(&written.path(), 1300, 1000);
    assert_eq!(number_of(&mut page, "#diagram .ipi"), 3);
    assert_eq!(
        number_of(&mut page, "#diagram .head"),
        2,
        "one is not taken"
    );
    // Rows of the send, and of the turn that takes it.
    let (from, to) = (
        page.number("shown.diagram.y(shown.diagram.rowOf.get(2))"),
        page.number("shown.diagram.y(shown.diagram.boxes[1].first)"),
    );
    let edge = |page: &mut Page, edge: &str| {
        page.number(&format!(
            "document.querySelector('#diagram .ipi').getBBox().{edge}"
        ))
    };
    let (top, height) = (edge(&mut page, "y"), edge(&mut page, "height"));
    assert!((top - from).abs() < 3.0, "{top} is not {from}");
    assert!(
        (top + height - to).abs() < 3.0,
        "{top} + {height} is not {to}"
    );
    let turn = page.text("document.querySelectorAll('.turn')[1].innerText");
    assert!(
        turn.contains("CPU 1 takes many") && turn.contains("from turn 1 of CPU 0"),
        "{turn}"
    );
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn a_store_leads_from_where_it_is_made_to_where_it_reaches_memory() {
    let mut story = made(2, 1);
    let written = page_of(&story, CASE);
    let mut page = Page::open(&written.path(), 1300, 1000);
    assert_eq!(number_of(&mut page, "#diagram .store"), 0);
    assert_eq!(number_of(&mut page, "#legend .store"), 0, "there is none");
    let issued = At { scene: 0, beat: 1 };
    story.scenes[2].flushes = true;
    story.scenes[2].beats[0].flushed = vec![Flushed {
        what: NAME.to_owned(),
        place: "guest/src/ipi/csd.rs:108".to_owned(),
        issued: Some(issued),
    }];
    let written = page_of(&story, CASE);
    let mut page = Page::open(&written.path(), 1300, 1000);
    assert_eq!(number_of(&mut page, "#diagram .store"), 1);
    assert_eq!(number_of(&mut page, "#diagram .reached"), 1);
    assert_eq!(number_of(&mut page, "#legend .store"), 1);
    let row = |stop: &str| format!("shown.diagram.y(shown.diagram.rowOf.get({stop}))");
    // The second stop of the first turn, and the first of the third.
    let (from, to) = (page.number(&row("1")), page.number(&row("6")));
    let edge = |page: &mut Page, edge: &str| {
        page.number(&format!(
            "document.querySelector('#diagram .store').getBBox().{edge}"
        ))
    };
    let (top, height) = (edge(&mut page, "y"), edge(&mut page, "height"));
    assert!((top - from).abs() < 3.0, "{top} is not {from}");
    assert!(
        (top + height - to).abs() < 3.0,
        "{top} + {height} is not {to}"
    );
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn keys_go_from_stop_to_stop_and_along_a_word() {
    let written = page_of(&made(3, 1), CASE);
    let mut page = Page::open(&written.path(), 1300, 1000);
    page.evaluate("document.querySelector('#diagram').focus()");
    let mut kept = Vec::new();
    for key in ["ArrowDown", "ArrowDown", "n", "n", "p", "ArrowUp", "Escape"] {
        page.key(key);
        kept.push(page.evaluate("shown.diagram.kept"));
    }
    // Rounds of CPU 0 have four stops, and of CPU 1 two; the second and the first of them are on
    // one word.
    assert_eq!(json!(kept), json!([0, 1, 4, 7, 4, 3, null]));
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn of_many_stops_those_are_shown_first_where_cpus_can_meet() {
    let written = page_of(&made(20, 50), CASE);
    let mut page = Page::open(&written.path(), 1300, 1000);
    let choose = |page: &mut Page, which: &str| {
        page.evaluate(&format!(
            "(() => {{ const it = document.querySelector('#which'); it.value = '{which}'; \
             it.dispatchEvent(new Event('change')); }})()"
        ));
        page.settle();
        number_of(page, "#diagram .stop")
    };
    // Of each round the store, the send and the end, and of each turn that answers both.
    assert_eq!(number_of(&mut page, "#diagram .stop"), 20 * 3 + 19 * 2);
    assert_eq!(choose(&mut page, "turns"), 39);
    assert_eq!(number_of(&mut page, "#diagram .head"), 19);
    assert_eq!(choose(&mut page, "all"), 20 * 53 + 19 * 2);
    assert_eq!(number_of(&mut page, "#words tbody tr"), 1);
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn a_diagram_takes_no_string_for_markup() {
    const EVIL: &str =
        "</script><script>globalThis.hit = 1</script><img src=x onerror='globalThis.hit = 2'>";
    let mut story = made(2, 1);
    story.texts = vec![EVIL.to_owned()];
    story.scenes[0].beats[0].what = EVIL.to_owned();
    story.scenes[0].beats[0].place = EVIL.to_owned();
    let written = page_of(&story, EVIL);
    let mut page = Page::open(&written.path(), 1300, 1000);
    let body = page.text("document.body.innerText");
    let times = body.matches(EVIL).count();
    assert!(times >= 4, "case, text twice, stop: {times}");
    page.evaluate("shown.diagram.keep(0)");
    assert!(page.text(TOLD).contains(EVIL));
    assert_eq!(page.evaluate("globalThis.hit ?? 0"), 0);
    assert_eq!(page.evaluate("document.images.length"), 0);
    page.is_quiet();
}

#[test]
#[ignore = "needs a browser: make test-browser"]
fn a_narrow_window_has_room_for_the_page_by_day_and_by_night() {
    let written = page_of(&made(3, 1), CASE);
    let mut page = Page::open(&written.path(), 400, 800);
    let mut looks = Vec::new();
    for scheme in ["light", "dark"] {
        page.prefer(scheme);
        let width = page.number("document.documentElement.scrollWidth");
        assert!(width <= 400.0, "{width}");
        looks.push(page.text(
            "getComputedStyle(document.body).backgroundColor \
             + getComputedStyle(document.querySelector('circle')).fill",
        ));
    }
    assert_ne!(looks[0], looks[1]);
    page.is_quiet();
}
