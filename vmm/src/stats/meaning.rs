//! What the points of a guest mean in a trace, by its manifest. A point that the manifest does not
//! declare is an instant with the name of the point; if it declares none, all points of the guest
//! are traced as instants. Knows no point of any guest by name.

use shared::manifest::PointRole;
use shared::stop;

use crate::manifest::{Manifest, Vector, WaitTimes};

/// What it means that a CPU has come to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A stretch of this lane begins.
    Begin(usize),
    /// It ends.
    End(usize),
    /// A handler begins.
    HandlerBegin,
    /// It ends.
    HandlerEnd,
    /// An IPI leaves.
    Send,
    /// The function of the current call begins to run.
    Run,
    /// A round of a bench is over.
    Round,
    /// The loop of a bench is over: this is how long its calls took to their functions.
    Delivered,
    /// It is over: this is how long it took.
    Total,
    /// Nothing else: an instant.
    Instant,
}

/// Stretches of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Its name, which is also that of its stretches.
    pub name: String,
    /// Under which key their times are reported, if the CPU only waits in them.
    pub wait: Option<WaitTimes>,
}

/// What all points of a guest mean, and the names of its vectors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meanings {
    lanes: Vec<Lane>,
    /// Indexed by the place of the point in the image's section.
    points: Vec<Meaning>,
    vectors: Vec<Vector>,
}

impl Meanings {
    /// The meanings of `points`, given in the order of the section, by `manifest`.
    pub fn new(points: &[String], manifest: &Manifest) -> Self {
        let mut lanes: Vec<Lane> = Vec::new();
        for point in &manifest.points {
            let Some(name) = &point.lane else { continue };
            let known = lanes.iter_mut().find(|lane| lane.name == *name);
            match known {
                Some(lane) => lane.wait = lane.wait.take().or_else(|| point.wait.clone()),
                None => lanes.push(Lane {
                    name: name.clone(),
                    wait: point.wait.clone(),
                }),
            }
        }
        lanes.sort_by(|one, other| one.name.cmp(&other.name));
        let meaning = |name: &String| {
            let point = manifest.points.iter().find(|it| it.name == *name)?;
            let lane = lanes
                .iter()
                .position(|it| Some(&it.name) == point.lane.as_ref());
            Some(match point.role {
                PointRole::Begin => Meaning::Begin(lane?),
                PointRole::End => Meaning::End(lane?),
                PointRole::HandlerBegin => Meaning::HandlerBegin,
                PointRole::HandlerEnd => Meaning::HandlerEnd,
                PointRole::Send => Meaning::Send,
                PointRole::Run => Meaning::Run,
                PointRole::Round => Meaning::Round,
                PointRole::Delivered => Meaning::Delivered,
                PointRole::Total => Meaning::Total,
                PointRole::Start => Meaning::Instant,
            })
        };
        let points = points.iter();
        let points = points.map(|name| meaning(name).unwrap_or(Meaning::Instant));
        Self {
            points: points.collect(),
            lanes,
            vectors: manifest.vectors.clone(),
        }
    }

    /// The vectors that have a name.
    pub fn vectors(&self) -> &[Vector] {
        &self.vectors
    }

    /// The lanes, by name.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The lanes in which CPUs only wait, with their indices among all lanes.
    pub fn waits(&self) -> impl Iterator<Item = (usize, &Lane, &WaitTimes)> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter_map(|(place, lane)| Some((place, lane, lane.wait.as_ref()?)))
    }

    /// The meaning of the point at this place of the section, if there is such a point.
    pub fn of(&self, point: u32) -> Option<Meaning> {
        let place = usize::try_from(point).ok()?;
        self.points.get(place).copied()
    }
}

/// The names of those points of an image that are traced for a timeline.
pub fn of_timeline(points: &[String], manifest: &Manifest) -> Vec<String> {
    let of_bench = [
        PointRole::Round,
        PointRole::Start,
        PointRole::Delivered,
        PointRole::Total,
    ];
    let in_timeline = |role| !of_bench.contains(&role);
    let declared = manifest.points.iter().filter(|it| in_timeline(it.role));
    let declared: Vec<_> = declared.map(|it| it.name.clone()).collect();
    if !declared.is_empty() {
        return declared;
    }
    // The points at which a search stops. There is one at every access to shared memory and in
    // every waiting loop; they would fill any trace.
    let are_of_searches = [stop::NAME, stop::RELAX];
    let is_one = |name: &&String| !are_of_searches.contains(&name.as_str());
    let mut all: Vec<_> = points.iter().filter(is_one).cloned().collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Point;

    fn point(name: &str, role: PointRole, lane: Option<&str>) -> Point {
        Point {
            name: name.to_owned(),
            role,
            lane: lane.map(str::to_owned),
            wait: None,
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn points_mean_what_the_guest_says() {
        let mut waits = point("wait", PointRole::Begin, Some("waiting"));
        waits.wait = Some(WaitTimes {
            key: "waits".to_owned(),
            about: "Waits.".to_owned(),
        });
        let manifest = Manifest {
            points: vec![
                waits,
                point("over", PointRole::End, Some("waiting")),
                point("in", PointRole::Begin, Some("busy")),
                point("out", PointRole::End, Some("busy")),
                point("ipi", PointRole::Send, None),
                point("round", PointRole::Round, None),
            ],
            ..Manifest::default()
        };
        let points = names(&["ipi", "other", "over", "in", "wait", "round"]);
        let meanings = Meanings::new(&points, &manifest);
        let said: Vec<_> = (0..7).map(|point| meanings.of(point)).collect();
        let expected = [
            Meaning::Send,
            Meaning::Instant,
            Meaning::End(1),
            Meaning::Begin(0),
            Meaning::Begin(1),
            Meaning::Round,
        ];
        let expected = expected.into_iter().map(Some).chain([None]);
        assert_eq!(said, expected.collect::<Vec<_>>());
        let waits: Vec<_> = meanings
            .waits()
            .map(|(place, lane, times)| (place, &*lane.name, &*times.key))
            .collect();
        assert_eq!(waits, [(1, "waiting", "waits")]);
        assert_eq!(
            of_timeline(&points, &manifest),
            ["wait", "over", "in", "out", "ipi"]
        );
    }

    #[test]
    fn of_a_guest_that_says_nothing_all_points_are_instants() {
        let points = names(&["b", "access", "a", "spin.relax", "b"]);
        let manifest = Manifest::default();
        assert_eq!(of_timeline(&points, &manifest), ["a", "b"]);
        let meanings = Meanings::new(&points, &manifest);
        assert_eq!(meanings.of(0), Some(Meaning::Instant));
        assert!(meanings.lanes().is_empty());
    }
}
