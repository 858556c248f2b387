//! What the points of a guest mean in a trace, by what its manifest says of them. A point of which
//! nothing is said is an instant, by its name; a guest that says nothing of any has all of its
//! points traced as such. Knows no point.

use shared::manifest::PointRole;
use shared::stop;

use crate::manifest::{Manifest, WaitTimes};

/// What it means that a CPU came to a point.
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
    /// The function of the call at hand begins to run.
    Run,
    /// A round of a bench is over.
    Round,
    /// Only that it came there.
    Instant,
}

/// Stretches of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Its name, which is also that of its stretches.
    pub name: String,
    /// What of them is reported, if the CPU only waits in them.
    pub wait: Option<WaitTimes>,
}

/// What all points of a guest mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meanings {
    lanes: Vec<Lane>,
    /// By the place of the point in the section.
    points: Vec<Meaning>,
}

impl Meanings {
    /// What `points`, in the order of the section, mean by `manifest`.
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
                PointRole::Start => Meaning::Instant,
            })
        };
        let points = points.iter();
        let points = points.map(|name| meaning(name).unwrap_or(Meaning::Instant));
        Self {
            points: points.collect(),
            lanes,
        }
    }

    /// The lanes, by name.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The lanes in which CPUs only wait, with their places among all.
    pub fn waits(&self) -> impl Iterator<Item = (usize, &Lane, &WaitTimes)> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter_map(|(place, lane)| Some((place, lane, lane.wait.as_ref()?)))
    }

    /// What the point at this place of the section means, if there is one.
    pub fn of(&self, point: u32) -> Option<Meaning> {
        let place = usize::try_from(point).ok()?;
        self.points.get(place).copied()
    }
}

/// The points, of all that an image has, that make a timeline.
pub fn of_timeline(points: &[String], manifest: &Manifest) -> Vec<String> {
    let in_timeline = |role| !matches!(role, PointRole::Round | PointRole::Start);
    let declared = manifest.points.iter().filter(|it| in_timeline(it.role));
    let declared: Vec<_> = declared.map(|it| it.name.clone()).collect();
    if !declared.is_empty() {
        return declared;
    }
    // A search stops at these, at every access and turn of a loop: they would fill every trace.
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
