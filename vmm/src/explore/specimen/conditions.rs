//! What the conditions of a case mean for this machine: at which addresses the words are that they
//! name, and whether they hold in the present state. Only reads.

use std::cell::OnceCell;

use shared::lab::Contexts;
use shared::ledger::CallId;

use super::breach::Breach;
use super::errors::SpecimenError;
use super::machine::Specimen;
use super::stopped::Stop;
use super::store_buffer::part;
use crate::cpus::CpuSet;
use crate::explore::condition::{Comparison, Condition, IDLE, Says, number};
use crate::explore::search::system::Holding;
use crate::lab::call_name::CallParts;
use crate::machine::memory_names::{self, walk::Names};
use crate::page_size::PAGE_SIZE;

/// The conditions of a case, as far as they need the image.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    all: Vec<Condition>,
    /// By condition and part: where its word is, if it is about one.
    words: Vec<Vec<Option<Place>>>,
    /// The condition that a schedule is to reach, if it is followed for that.
    sought: Option<usize>,
}

/// Where a word is, and how many bytes it has.
#[derive(Debug, Clone, Copy)]
struct Place {
    address: u64,
    bytes: u8,
}

impl Specimen {
    /// From now on knows whether `conditions` hold.
    ///
    /// # Errors
    /// [`SpecimenError::Condition`] if one is about a word that is not there, or that is no part of
    /// a state.
    pub(super) fn heed(&mut self, conditions: &[Condition]) -> Result<(), SpecimenError> {
        let mut words = Vec::with_capacity(conditions.len());
        // To find the names takes a walk through all of memory.
        let names = OnceCell::new();
        for condition in conditions {
            let places = condition.parts.iter().map(|part| match &part.says {
                Says::Word { name, bytes, .. } => {
                    let place = self.find_word(name, *bytes, &names);
                    let place = place.map_err(|why| SpecimenError::Condition {
                        condition: condition.to_string(),
                        why,
                    });
                    place.map(Some)
                }
                Says::Ran(..) | Says::At(..) => Ok(None),
            });
            words.push(places.collect::<Result<Vec<_>, _>>()?);
        }
        self.conditions.words = words;
        self.conditions.all = conditions.to_vec();
        Ok(())
    }

    /// The line of the guest's source at which `cpu` stands, or where that is in memory.
    pub(super) fn place(&self, cpu: usize) -> String {
        let line = self.lines.at(&self.callers(cpu));
        line.map_or_else(|| format!("{:#x}", self.cpus[cpu].rip()), |line| line.text)
    }

    fn find_word(
        &self,
        name: &str,
        bytes: Option<u8>,
        names: &OnceCell<Names>,
    ) -> Result<Place, String> {
        let (start, size) = match number(name).filter(|_| name.starts_with("0x")) {
            Some(address) => (address, u64::from(bytes.unwrap_or(8))),
            None => {
                let names = names.get_or_init(|| {
                    let memory = |address| self.word_at_first(address);
                    memory_names::names(self.lines.image(), memory)
                });
                let found = names.find_named(name);
                found.ok_or_else(|| {
                    format!("the guest has no word \"{name}\" by its debug information")
                })?
            }
        };
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => u8::try_from(size)
                .ok()
                .filter(|size| matches!(size, 1 | 2 | 4 | 8))
                .ok_or_else(|| format!("\"{name}\" has {size} bytes: say how many, such as :8"))?,
        };
        if start % 8 + u64::from(bytes) > 8 {
            return Err(format!(
                "\"{name}\" is not within eight bytes from a multiple of eight"
            ));
        }
        let page = usize::try_from(start / PAGE_SIZE as u64).unwrap_or(usize::MAX);
        let is_on_stack = self.contexts.iter().any(|contexts| {
            let Contexts { task, handler, .. } = contexts;
            let within = |[first, end]: &[u64; 2]| (*first..*end).contains(&start);
            within(task) || within(handler)
        });
        if self.word(start & !7).is_none() {
            Err(format!("{start:#x} is no address of guest memory"))
        } else if is_on_stack || self.unobserved.contains(&page) || self.passing.is_on_page(page) {
            let why = "is on a stack, or a counter, or part of a trace, which are no part of what \
                       ends are compared by";
            Err(format!("{start:#x} {why}"))
        } else {
            Ok(Place {
                address: start,
                bytes,
            })
        }
    }

    /// The conditions of the case.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions.all
    }

    /// From now on schedules are followed to reach the condition with this index, and not to break
    /// something; without one, to break something again.
    pub(in crate::explore) fn seek(&mut self, condition: Option<usize>) {
        self.conditions.sought = condition;
    }

    /// Whether schedules are followed to reach a condition.
    pub(in crate::explore) fn seeks(&self) -> bool {
        self.conditions.sought.is_some()
    }

    /// The condition that is sought, if it holds in the present state.
    pub(in crate::explore) fn sought(&self) -> Option<Breach> {
        let index = self.conditions.sought?;
        let condition = &self.conditions.all[index];
        let is_there = condition.on_the_way || self.is_over() && self.choices().is_empty();
        (is_there && self.whether(index) == Some(true))
            .then(|| Breach::reached(&condition.to_string()))
    }

    /// Which conditions hold in the present state. Those about ends do not, unless it is one.
    pub(super) fn holding(&self, is_end: bool) -> Holding {
        let mut holding = Holding::default();
        if self.conditions.all.is_empty() {
            return holding;
        }
        let is_end = is_end && self.is_over();
        for (index, condition) in self.conditions.all.iter().enumerate() {
            if condition.on_the_way || is_end {
                match self.whether(index) {
                    Some(true) => holding.holds |= 1 << index,
                    Some(false) => {}
                    None => holding.untold |= 1 << index,
                }
            }
        }
        holding
    }

    /// Whether the condition with this index holds in the present state; `None` if that cannot be
    /// told.
    fn whether(&self, index: usize) -> Option<bool> {
        let condition = &self.conditions.all[index];
        let places = &self.conditions.words[index];
        let mut all = Some(true);
        for (part, place) in condition.parts.iter().zip(places) {
            let is_so = match &part.says {
                Says::Ran(call, on) => self.has_run(call, on),
                Says::At(cpu, line) => Some(self.is_at(*cpu as usize, line)),
                Says::Word { is, number, .. } => {
                    place.map(|place| self.compares(place, *is, *number))
                }
            };
            match is_so.map(|is_so| is_so != part.is_not) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    fn compares(&self, place: Place, is: Comparison, number: u64) -> bool {
        let word = self.word(place.address & !7).unwrap_or(0);
        is.holds(part(word, place.address, place.bytes), number)
    }

    /// Whether the call has run on all of `on`. Of a call of which a later one has taken the record
    /// that cannot be told.
    fn has_run(&self, call: &CallParts, on: &CpuSet) -> Option<bool> {
        if let Some(record) = self.lab.record_named(call.source, call.lane, call.sequence) {
            return Some(on.without(&record.ran).is_empty());
        }
        let later = call.sequence.checked_add(u64::from(self.lab.slots()))?;
        let is_gone = self.lab.records().any(|record| {
            let id = CallId::from_raw(record.head.id);
            (u32::from(id.source()), id.lane()) == (call.source, call.lane)
                && id.sequence() >= later
        });
        // It was not made, and so has run nowhere.
        (!is_gone).then(|| on.is_empty())
    }

    fn is_at(&self, cpu: usize, line: &str) -> bool {
        let Some(stopped) = self.cpus.get(cpu) else {
            return false;
        };
        if line == IDLE {
            return stopped.at == Stop::Idle;
        }
        if stopped.is_down() {
            return false;
        }
        let here = self.lines.at(&self.callers(cpu));
        here.is_some_and(|here| {
            let before = here.text.strip_suffix(line);
            before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
        })
    }
}
