//! The walk through a snapshot of guest memory: from the statics along fields, array elements and
//! pointers, breadth first, so that a value that can be reached in several ways gets the shortest
//! name. The work is bounded, whatever the memory holds and the types say.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::types::{Field, Shape, Type, TypeId, Types, Variants};

/// Most values that are visited. A guest with a thousand CPUs has some hundred thousand.
const MOST_VALUES: usize = 1 << 19;

/// Most steps of a name.
const DEEPEST: u32 = 40;

/// Most elements of one array that are visited.
const MOST_ELEMENTS: u64 = 1 << 12;

/// The names of words.
#[derive(Debug, Default)]
pub struct Names {
    /// By address, the length in bytes and the name.
    leaves: BTreeMap<u64, (u64, PathId)>,
    paths: Vec<Path>,
}

type PathId = u32;

/// A name: its last step, and the name before that.
#[derive(Debug)]
struct Path {
    before: Option<PathId>,
    step: Step,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(u64),
}

/// A value that is still to be visited.
#[derive(Debug, Clone, Copy)]
struct Value {
    address: u64,
    of: TypeId,
    path: PathId,
    depth: u32,
}

impl Names {
    /// Finds the names of everything that can be reached from the statics of `types` in `memory`,
    /// which returns the eight bytes at an address that is a multiple of eight.
    pub fn find(types: &Types, memory: impl Fn(u64) -> Option<u64>) -> Self {
        let mut walk = Walk {
            types,
            memory,
            names: Self::default(),
            waiting: VecDeque::new(),
            seen: HashSet::new(),
        };
        for root in &types.statics {
            let path = walk.names.path(None, Step::Name(root.name.clone()));
            walk.meet(Value {
                address: root.address,
                of: root.of,
                path,
                depth: 0,
            });
        }
        while let Some(value) = walk.waiting.pop_front() {
            walk.look(value);
        }
        walk.names
    }

    /// The name of the value at `address`; with the offset if the value begins before it.
    pub fn name(&self, address: u64) -> Option<String> {
        let (start, (size, path)) = self.leaves.range(..=address).next_back()?;
        let offset = address - start;
        if offset >= *size {
            return None;
        }
        let mut name = self.text(*path);
        if offset > 0 {
            name += &format!("+{offset:#x}");
        }
        Some(name)
    }

    /// The names of all values that begin in the eight bytes at `address`.
    pub fn in_word(&self, address: u64) -> Vec<String> {
        let Some(end) = address.checked_add(8) else {
            return Vec::new();
        };
        let leaves = self.leaves.range(address..end);
        let mut names: Vec<_> = leaves.map(|(_, (_, path))| self.text(*path)).collect();
        if names.is_empty() {
            names.extend(self.name(address));
        }
        names
    }

    /// The address of the value with this name, and its length in bytes.
    pub fn find_named(&self, name: &str) -> Option<(u64, u64)> {
        let mut leaves = self.leaves.iter();
        let found = leaves.find(|(_, (_, path))| self.text(*path) == name);
        found.map(|(address, (size, _))| (*address, *size))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    fn path(&mut self, before: Option<PathId>, step: Step) -> PathId {
        self.paths.push(Path { before, step });
        u32::try_from(self.paths.len() - 1).unwrap_or(u32::MAX)
    }

    fn text(&self, path: PathId) -> String {
        let mut steps = Vec::new();
        let mut at = Some(path);
        // Each path was made after the one before it, so they form no circle.
        while let Some(path) = at.and_then(|at| self.paths.get(at as usize)) {
            steps.push(&path.step);
            at = path.before;
        }
        let mut text = String::new();
        for step in steps.into_iter().rev() {
            match step {
                // A structure or union of C without a name.
                Step::Name(name) if name.is_empty() => {}
                Step::Name(name) if text.is_empty() => text += name,
                Step::Name(name) => text += &format!(".{name}"),
                Step::Index(index) => text += &format!("[{index}]"),
            }
        }
        text
    }
}

struct Walk<'t, M> {
    types: &'t Types,
    memory: M,
    names: Names,
    waiting: VecDeque<Value>,
    seen: HashSet<(u64, TypeId)>,
}

impl<M: Fn(u64) -> Option<u64>> Walk<'_, M> {
    /// Queues `value` to be visited, unless it was queued before or there are too many.
    fn meet(&mut self, value: Value) {
        let is_there = (self.memory)(value.address & !7).is_some();
        if is_there
            && value.depth <= DEEPEST
            && self.seen.len() < MOST_VALUES
            && self.seen.insert((value.address, value.of))
        {
            self.waiting.push_back(value);
        }
    }

    /// Visits `value`: names it, or queues its parts.
    fn look(&mut self, value: Value) {
        let Some(found) = self.types.get(value.of) else {
            return;
        };
        match &found.shape {
            // `get` has followed all aliases.
            Shape::Alias(_) => {}
            Shape::Scalar => self.leaf(value, found.size),
            Shape::Pointer(of) => {
                self.leaf(value, 8);
                self.follow(value, value.address, *of);
            }
            Shape::Array { of, count } => self.elements(value, value.address, *of, *count),
            Shape::Slice {
                of,
                address,
                length,
            } => {
                self.leaf(value, found.size);
                let start = self.word_in(value, *address);
                let length = self.word_in(value, *length);
                if let (Some(start), Some(length)) = (start, length) {
                    self.elements(value, start, *of, length);
                }
            }
            Shape::Object { address, vtable } => {
                self.leaf(value, found.size);
                let vtable = self.word_in(value, *vtable);
                let of = vtable.and_then(|vtable| self.types.vtables.get(&vtable));
                let start = value.address.checked_add(*address);
                if let (Some(of), Some(start)) = (of, start) {
                    self.follow(value, start, *of);
                }
            }
            Shape::Struct { fields, variants } => self.parts(value, found, fields, variants),
        }
    }

    /// Names `size` bytes, unless they have a name already.
    fn leaf(&mut self, value: Value, size: u64) {
        let Some(end) = value.address.checked_add(size) else {
            return;
        };
        let leaves = &self.names.leaves;
        let before = leaves.range(..end).next_back();
        let is_free = before.is_none_or(|(start, (size, _))| start + size <= value.address);
        if size > 0 && is_free {
            let leaf = (size, value.path);
            self.names.leaves.insert(value.address, leaf);
        }
    }

    /// The eight bytes at `offset` in `value`.
    fn word_in(&self, value: Value, offset: u64) -> Option<u64> {
        (self.memory)(value.address.checked_add(offset)?)
    }

    /// Queues the value of type `of` whose address is stored at `place`, a part of `value`.
    fn follow(&mut self, value: Value, place: u64, of: TypeId) {
        let target = (self.memory)(place).filter(|address| *address != 0);
        if let Some(address) = target {
            self.meet(Value {
                address,
                of,
                depth: value.depth + 1,
                ..value
            });
        }
    }

    fn elements(&mut self, value: Value, start: u64, of: TypeId, count: u64) {
        let Some(element) = self.types.get(of) else {
            return;
        };
        let size = self.types.size(of);
        if size <= 1 && element.shape == Shape::Scalar {
            // An array of bytes is a text or padding, and gets one name as a whole.
            let limit = MOST_ELEMENTS << 8;
            let whole = Value {
                address: start,
                ..value
            };
            if (self.memory)(start & !7).is_some() {
                self.leaf(whole, count.min(limit));
            }
            return;
        }
        for index in 0..count.min(MOST_ELEMENTS) {
            let offset = index.checked_mul(size);
            let Some(address) = offset.and_then(|offset| start.checked_add(offset)) else {
                return;
            };
            if size == 0 || self.seen.len() >= MOST_VALUES || (self.memory)(address & !7).is_none()
            {
                return;
            }
            let path = self.names.path(Some(value.path), Step::Index(index));
            self.meet(Value {
                address,
                of,
                path,
                depth: value.depth + 1,
            });
        }
    }

    fn parts(&mut self, value: Value, found: &Type, fields: &[Field], variants: &Option<Variants>) {
        let sized = |field: &&Field| self.types.size(field.of) > 0;
        let is_only = fields.iter().filter(sized).count() == 1;
        for field in fields {
            let path = if is_nameless(found, field, is_only) {
                value.path
            } else {
                let name = field.name.strip_prefix("__").unwrap_or(&field.name);
                self.names
                    .path(Some(value.path), Step::Name(name.to_owned()))
            };
            self.part(value, field, path);
        }
        let Some(Variants {
            discriminant,
            cases,
        }) = variants
        else {
            return;
        };
        let is = discriminant.as_ref().and_then(|it| self.small(value, it));
        let same = |case: &&(Option<u64>, Field)| case.0.is_some() && case.0 == is;
        let other = |case: &&(Option<u64>, Field)| case.0.is_none();
        let case = cases.iter().find(same).or_else(|| cases.iter().find(other));
        if let Some((_, field)) = case {
            self.part(value, field, value.path);
        }
        if let Some(field) = discriminant {
            self.part(value, field, value.path);
        }
    }

    fn part(&mut self, value: Value, field: &Field, path: PathId) {
        if let Some(address) = value.address.checked_add(field.offset)
            && self.types.size(field.of) > 0
        {
            self.meet(Value {
                address,
                of: field.of,
                path,
                depth: value.depth + 1,
            });
        }
    }

    /// The value of `field` of `value` as a number.
    fn small(&self, value: Value, field: &Field) -> Option<u64> {
        let address = value.address.checked_add(field.offset)?;
        let word = (self.memory)(address & !7)? >> (address % 8 * 8);
        match self.types.size(field.of) {
            size @ 1..8 if address % 8 + size <= 8 => Some(word & ((1 << (size * 8)) - 1)),
            8 if address.is_multiple_of(8) => Some(word),
            _ => None,
        }
    }
}

/// Whether the name of `field` of `found` is left out: that of a wrapper around another value, or
/// of the value that an `Arc` or `Rc` holds beside its counts.
fn is_nameless(found: &Type, field: &Field, is_only: bool) -> bool {
    let counted = ["ArcInner<", "RcInner<"];
    let is_counted = counted.iter().any(|name| found.name.starts_with(name));
    is_only && (found.is_std || field.name.starts_with("__"))
        || found.is_std && is_counted && !matches!(&*field.name, "strong" | "weak")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::types::Static;
    use super::*;

    const WORD: TypeId = 0;
    const BYTE: TypeId = 1;

    fn field(name: &str, offset: u64, of: TypeId) -> Field {
        Field {
            name: name.to_owned(),
            offset,
            of,
        }
    }

    fn made(name: &str, size: u64, shape: Shape) -> Type {
        Type {
            name: name.to_owned(),
            size,
            is_std: false,
            shape,
        }
    }

    fn of_fields(name: &str, size: u64, fields: Vec<Field>) -> Type {
        let variants = None;
        made(name, size, Shape::Struct { fields, variants })
    }

    /// A model whose first types are a word and a byte, with one static at 0x1000, which is of the
    /// third.
    fn model(others: Vec<Type>) -> Types {
        let mut all = vec![made("u64", 8, Shape::Scalar), made("u8", 1, Shape::Scalar)];
        all.extend(others);
        Types {
            all,
            statics: vec![Static {
                name: "ROOT".to_owned(),
                address: 0x1000,
                of: 2,
            }],
            vtables: HashMap::new(),
        }
    }

    /// Memory up to 0x10000, zero but for some words.
    fn memory(words: &[(u64, u64)]) -> impl Fn(u64) -> Option<u64> {
        let words: HashMap<_, _> = words.iter().copied().collect();
        move |address| {
            let is_there = address.is_multiple_of(8) && address < 0x10000;
            is_there.then(|| words.get(&address).copied().unwrap_or(0))
        }
    }

    #[test]
    fn fields_and_elements_are_named_by_the_way_to_them() {
        let types = model(vec![
            of_fields(
                "Root",
                40,
                vec![field("first", 0, WORD), field("cpus", 8, 3)],
            ),
            made("[PerCpu; 2]", 0, Shape::Array { of: 4, count: 2 }),
            of_fields(
                "PerCpu",
                16,
                vec![field("lock", 0, WORD), field("__0", 8, WORD)],
            ),
        ]);
        let names = Names::find(&types, memory(&[]));
        let name = |address| names.name(address);
        assert_eq!(name(0x1000).unwrap(), "ROOT.first");
        assert_eq!(name(0x1018).unwrap(), "ROOT.cpus[1].lock");
        assert_eq!(name(0x1024).unwrap(), "ROOT.cpus[1].0+0x4");
        assert_eq!(name(0x1028), None);
        assert_eq!(name(0xfff), None);
        assert_eq!(names.in_word(0x1018), ["ROOT.cpus[1].lock"]);
    }

    #[test]
    fn addresses_are_followed_and_rings_are_gone_round_once() {
        let types = model(vec![
            made("*Node", 8, Shape::Pointer(3)),
            of_fields(
                "Node",
                16,
                vec![field("next", 0, 2), field("value", 8, WORD)],
            ),
        ]);
        let ring = [(0x1000, 0x2000), (0x2000, 0x3000), (0x3000, 0x2000)];
        let names = Names::find(&types, memory(&ring));
        assert_eq!(names.name(0x1000).unwrap(), "ROOT");
        assert_eq!(names.name(0x2008).unwrap(), "ROOT.value");
        assert_eq!(names.name(0x3008).unwrap(), "ROOT.next.value");
        assert_eq!(names.len(), 5);
        for nowhere in [0, 0x10000, u64::MAX, 0x2001_0000_0000] {
            let names = Names::find(&types, memory(&[(0x1000, nowhere)]));
            assert_eq!(names.len(), 1, "{nowhere:#x}");
        }
    }

    #[test]
    fn slices_and_objects_are_looked_at_by_what_memory_says_of_them() {
        let mut types = model(vec![
            of_fields("Root", 32, vec![field("list", 0, 3), field("many", 16, 4)]),
            made(
                "&[u64]",
                16,
                Shape::Slice {
                    of: WORD,
                    address: 0,
                    length: 8,
                },
            ),
            made(
                "Box<dyn Queue>",
                16,
                Shape::Object {
                    address: 0,
                    vtable: 8,
                },
            ),
            of_fields("Locked", 8, vec![field("held", 0, WORD)]),
        ]);
        types.vtables.insert(0x500, 5);
        let words = [
            (0x1000, 0x2000),
            (0x1008, 3),
            (0x1010, 0x3000),
            (0x1018, 0x500),
        ];
        let names = Names::find(&types, memory(&words));
        assert_eq!(names.name(0x2010).unwrap(), "ROOT.list[2]");
        assert_eq!(names.name(0x2018), None);
        assert_eq!(names.name(0x3000).unwrap(), "ROOT.many.held");
        // A vtable of an unknown type, and a length that makes no sense.
        let words = [
            (0x1000, 0xfff0),
            (0x1008, u64::MAX),
            (0x1010, 0x3000),
            (0x1018, 0x508),
        ];
        let names = Names::find(&types, memory(&words));
        assert_eq!(names.name(0x3000), None);
        assert_eq!(names.name(0xfff8).unwrap(), "ROOT.list[1]");
    }

    #[test]
    fn of_variants_the_one_that_is_there_has_a_name() {
        let variants = Variants {
            discriminant: Some(field("", 0, BYTE)),
            cases: vec![(Some(0), field("None", 0, 3)), (None, field("Some", 0, 4))],
        };
        let types = model(vec![
            made(
                "Option<Pool>",
                16,
                Shape::Struct {
                    fields: Vec::new(),
                    variants: Some(variants),
                },
            ),
            of_fields("None", 16, Vec::new()),
            of_fields("Some", 16, vec![field("__0", 8, WORD)]),
        ]);
        let names = Names::find(&types, memory(&[(0x1000, 7)]));
        assert_eq!(names.name(0x1008).unwrap(), "ROOT");
        // Of the word only the first byte counts.
        let names = Names::find(&types, memory(&[(0x1000, 0x700)]));
        assert_eq!(names.name(0x1008), None);
    }

    #[test]
    fn what_only_wraps_another_value_adds_nothing_to_its_name() {
        let in_core = |of: Type| Type { is_std: true, ..of };
        let types = model(vec![
            of_fields("Root", 32, vec![field("flags", 0, 3), field("data", 8, 5)]),
            of_fields("AtomicU64", 8, vec![field("__0", 0, 4)]),
            in_core(of_fields(
                "UnsafeCell<u64>",
                8,
                vec![field("value", 0, WORD)],
            )),
            in_core(of_fields(
                "ArcInner<Singles>",
                24,
                vec![field("strong", 0, WORD), field("data", 8, 6)],
            )),
            of_fields("Singles", 16, vec![field("data", 8, WORD)]),
        ]);
        let names = Names::find(&types, memory(&[]));
        assert_eq!(names.name(0x1000).unwrap(), "ROOT.flags");
        assert_eq!(names.name(0x1008).unwrap(), "ROOT.data.strong");
        assert_eq!(names.name(0x1018).unwrap(), "ROOT.data.data");
    }

    #[test]
    fn bytes_have_one_name_and_two_halves_of_a_word_two() {
        let types = model(vec![
            of_fields(
                "Root",
                40,
                vec![field("text", 0, 3), field("a", 32, 4), field("b", 36, 4)],
            ),
            made(
                "[u8; 32]",
                0,
                Shape::Array {
                    of: BYTE,
                    count: 32,
                },
            ),
            made("u32", 4, Shape::Scalar),
        ]);
        let names = Names::find(&types, memory(&[]));
        assert_eq!(names.name(0x1011).unwrap(), "ROOT.text+0x11");
        assert_eq!(names.in_word(0x1010), ["ROOT.text+0x10"]);
        assert_eq!(names.in_word(0x1020), ["ROOT.a", "ROOT.b"]);
        assert_eq!(names.name(0x1024).unwrap(), "ROOT.b");
        assert_eq!(names.in_word(u64::MAX), [""; 0]);
    }

    fn shape() -> impl Strategy<Value = Shape> {
        let of = 0..12_u32;
        let place = || prop_oneof![0..64_u64, any::<u64>()];
        let field = (of.clone(), place()).prop_map(|(of, offset)| field("field", offset, of));
        let case = (any::<Option<u64>>(), field.clone());
        let variants = (
            proptest::option::of(field.clone()),
            proptest::collection::vec(case, 0..3),
        )
            .prop_map(|(discriminant, cases)| Variants {
                discriminant,
                cases,
            });
        prop_oneof![
            Just(Shape::Scalar),
            of.clone().prop_map(Shape::Pointer),
            of.clone().prop_map(Shape::Alias),
            (of.clone(), place()).prop_map(|(of, count)| Shape::Array { of, count }),
            (of, place(), place()).prop_map(|(of, address, length)| Shape::Slice {
                of,
                address,
                length
            }),
            (place(), place()).prop_map(|(address, vtable)| Shape::Object { address, vtable }),
            (
                proptest::collection::vec(field, 0..4),
                proptest::option::of(variants)
            )
                .prop_map(|(fields, variants)| Shape::Struct { fields, variants }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the types say and the memory holds, the walk ends, within its bounds.
        #[test]
        fn no_types_and_no_memory_make_a_walk_without_end(
            shapes in proptest::collection::vec(
                (shape(), prop_oneof![0..64_u64, any::<u64>()]), 10,
            ),
            statics in proptest::collection::vec((any::<u64>(), 0..12_u32), 3),
            words in proptest::collection::vec(0..0x10000_u64, 64),
        ) {
            let others = shapes.into_iter().map(|(shape, size)| made("Vec<", size, shape));
            let mut types = model(others.collect());
            for (address, of) in statics {
                types.statics.push(Static { name: "OTHER".to_owned(), address, of });
                types.vtables.insert(address % 0x10000, of);
            }
            let memory = |address: u64| {
                let is_there = address.is_multiple_of(8) && address < 0x10000;
                is_there.then(|| words[usize::try_from(address / 8 % 64).unwrap()])
            };
            let names = Names::find(&types, memory);
            prop_assert!(names.len() <= MOST_VALUES);
            for address in [0, 0x1000, 0xffff, u64::MAX] {
                let _ = names.name(address);
                let _ = names.in_word(address);
            }
        }
    }
}
