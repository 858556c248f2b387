//! Scenarios: scripts in Rhai that boot a machine, drive its CPUs, stall them, look, and say what
//! must come out. This runs one; what a script can say is in the modules below, and all of it is
//! verbs of the [`Operator`]. `docs/scenarios.md` is the reference.

mod cpu;
mod deed_handle;
mod deeds;
mod failure;
mod machine;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rhai::{Dynamic, Engine, EvalAltResult};

use super::operator::{Operator, OperatorError, Wait};
use super::{Ending, Stream};
use crate::provenance::Input;
use crate::text;
use failure::bad;
pub use failure::{Failure, FailureKind};

/// How long a wait goes on, unless the script says otherwise.
const LIMIT: Duration = Duration::from_secs(10);

/// How long a machine may take to start its workload, at least. With hundreds of vCPUs it takes
/// seconds.
const BOOT: Duration = Duration::from_secs(60);

/// Steps of the interpreter that a script may take: some seconds, if it does nothing else.
const MOST_OPERATIONS: u64 = 100_000_000;

/// How many of them lie between two looks at whether the script is still wanted.
const STEPS_UNSEEN: u64 = 1024;

/// A machine that a script wants. What it does not say is as on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootRequest {
    /// The guest image.
    pub guest: Option<PathBuf>,
    /// Number of vCPUs.
    pub vcpus: Option<u32>,
    /// MiB of RAM.
    pub memory: Option<u64>,
    /// The guest's command line.
    pub append: Option<String>,
}

/// Boots machines for a script. Says in words why it did not.
pub type Boot = dyn Fn(BootRequest) -> Result<Arc<Operator>, String>;

/// What a script is given beside machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptInput {
    /// Whether there is a machine for a script that boots none itself.
    pub machine: bool,
    /// Values that it can ask for by name.
    pub params: BTreeMap<String, String>,
    /// Where what it prints goes while there is no machine with a console.
    pub console: Stream,
}

/// A script, read and checked.
#[derive(Debug)]
pub struct Script {
    file: PathBuf,
    text: String,
}

impl Script {
    /// Reads `file` and checks its grammar.
    ///
    /// # Errors
    /// [`Failure`] says where it is not right.
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let text = text::read(file).map_err(|error| Failure::unreadable(file, &error))?;
        let script = Self {
            file: file.to_owned(),
            text,
        };
        bare_engine()
            .compile(&script.text)
            .map_err(|error| Failure::of(file, &error.into()))?;
        Ok(script)
    }

    /// What it was read from.
    pub fn input(&self) -> Input {
        Input::new(&self.file, self.text.as_bytes())
    }

    /// Runs the script to its end. A machine that is left over then is finished, or waited for if
    /// the script only watched it.
    ///
    /// # Errors
    /// [`Failure`] says where and why it stopped. The machine it was at work on, if there is one,
    /// ends by that.
    pub fn run(&self, boot: Box<Boot>, given: ScriptInput) -> Result<(), Failure> {
        let context = Rc::new(ScriptContext {
            boot,
            given,
            has_booted: Cell::new(false),
            current: RefCell::default(),
            limit: Cell::new(LIMIT),
            unsaid: RefCell::default(),
            cut_short: RefCell::default(),
        });
        let result = self
            .perform(&context)
            .map_err(|error| Failure::of(&self.file, &error));
        if let (Err(failure), Some(operator)) = (&result, context.leave()) {
            operator.end_as(Ending::Script(failure.clone()));
            operator.wait_end();
        }
        result
    }

    fn perform(&self, context: &Rc<ScriptContext>) -> Result<(), Box<EvalAltResult>> {
        let engine = context.engine(&self.text);
        let program = engine.compile(&self.text)?;
        engine.run_ast(&program)?;
        if context.given.machine && !context.has_booted.get() {
            context.boot(BootRequest::default())?;
        }
        context.close()
    }
}

fn bare_engine() -> Engine {
    let mut engine = Engine::new();
    engine.set_max_expr_depths(64, 64);
    engine.set_max_operations(MOST_OPERATIONS);
    engine.set_max_string_size(1 << 20);
    engine.set_max_array_size(1 << 16);
    engine.set_max_map_size(1 << 16);
    engine
}

fn no_clock() -> Result<(), Box<EvalAltResult>> {
    Err(bad(
        "a script has no clock to sleep by; have it wait for what is to happen".to_owned(),
    ))
}

/// What a script works with.
struct ScriptContext {
    boot: Box<Boot>,
    given: ScriptInput,
    has_booted: Cell<bool>,
    /// The machine it is at work on.
    current: RefCell<Option<Arc<Operator>>>,
    limit: Cell<Duration>,
    /// What it has printed without a machine, if that is to be kept: for the next one's console.
    unsaid: RefCell<Vec<String>>,
    /// Why it is not to go on, if an earlier machine was ended from outside.
    cut_short: RefCell<Option<String>>,
}

impl ScriptContext {
    /// The engine for the script `text`.
    fn engine(self: &Rc<Self>, text: &str) -> Engine {
        let mut engine = bare_engine();
        // First: what is registered with the same types takes the place of a deed.
        deeds::register(&mut engine, text);
        machine::register(&mut engine, self);
        cpu::register(&mut engine, self);
        deed_handle::register(&mut engine, self);
        wire::register(&mut engine, self);
        failure::register(&mut engine);
        // The language's own would outlive the machine.
        engine.register_fn("sleep", |_: i64| no_clock());
        engine.register_fn("sleep", |_: f64| no_clock());

        // Names that every script finds, and every function in it, which would not see a variable.
        #[expect(
            deprecated,
            reason = "Rhai marks it as volatile, and has nothing else for functions"
        )]
        engine.on_var(|name, _, context| {
            // What a script calls so itself is its own.
            if context.scope().contains(name) {
                return Ok(None);
            }
            Ok(match name {
                "wait" => Some(true.into()),
                "nowait" => Some(false.into()),
                "wire" => Some(Dynamic::from(wire::WireHandle)),
                _ => None,
            })
        });
        let context = Rc::clone(self);
        engine.on_progress(move |steps| {
            let is_time = steps % STEPS_UNSEEN == 0;
            let why = is_time.then(|| context.cut_short()).flatten()?;
            Some(failure::over(&why))
        });
        let context = Rc::clone(self);
        engine.on_print(move |text| context.say(text));
        let context = Rc::clone(self);
        engine.on_debug(move |text, _, place| context.say(&format!("{place}: {text}")));
        engine
    }

    /// The machine it is at work on.
    fn operator(&self) -> Result<Arc<Operator>, Box<EvalAltResult>> {
        if self.given.machine && !self.has_booted.get() {
            self.boot(BootRequest::default())?;
        }
        let current = self.current.borrow().clone();
        current.ok_or_else(|| {
            bad(
                "there is no machine; boot one, or name a guest image on the command line"
                    .to_owned(),
            )
        })
    }

    /// Boots a machine, after the one it was at work on has come to its end.
    fn boot(&self, wanted: BootRequest) -> Result<(), Box<EvalAltResult>> {
        self.close()?;
        if let Some(why) = self.cut_short() {
            return Err(OperatorError::Over(why).into());
        }
        self.has_booted.set(true);
        let operator = (self.boot)(wanted).map_err(bad)?;
        operator.drive(true);
        let start = self.limit.get().max(BOOT);
        *self.current.borrow_mut() = Some(Arc::clone(&operator));
        self.unsaid
            .take()
            .iter()
            .for_each(|text| operator.say(text));
        // Earlier a script could only be in the way.
        let started = operator.wait_started(Wait::up_to(start));
        if !matches!(started, Err(OperatorError::Over(_))) {
            started?;
        }
        Ok(())
    }

    /// Brings the machine it was at work on to its end.
    fn close(&self) -> Result<(), Box<EvalAltResult>> {
        let Some(operator) = self.current.borrow().clone() else {
            return Ok(());
        };
        if operator.over().is_none() {
            let ended = match operator.takes_commands() {
                true => operator.finish(self.wait()),
                false => operator.let_go(),
            };
            match ended {
                // It has come to its end by itself meanwhile.
                Err(OperatorError::Over(_)) if !operator.takes_commands() => {}
                ended => ended?,
            }
        }
        operator.drive(false);
        operator.wait_end();
        self.leave();
        Ok(())
    }

    /// The machine is no longer the one it is at work on.
    fn leave(&self) -> Option<Arc<Operator>> {
        let left = self.current.take();
        if let Some(why) = left.as_ref().and_then(|operator| operator.cut_short()) {
            self.cut_short.borrow_mut().get_or_insert(why.to_owned());
        }
        left
    }

    /// Why the script is not to go on, if it is not: this machine or an earlier one was ended from
    /// outside.
    fn cut_short(&self) -> Option<String> {
        let current = self.current.borrow();
        let now = current.as_ref().and_then(|operator| operator.cut_short());
        now.map(str::to_owned)
            .or_else(|| self.cut_short.borrow().clone())
    }

    /// How long it waits.
    fn wait(&self) -> Wait<'static> {
        Wait::up_to(self.limit.get())
    }

    fn say(&self, text: &str) {
        match &*self.current.borrow() {
            Some(operator) => operator.say(text),
            // A reader that has gone, as of a machine's console, is no reason to stop.
            None => match self.given.console {
                Stream::Stdout => _ = writeln!(io::stdout(), "{text}"),
                Stream::Stderr => _ = writeln!(io::stderr(), "{text}"),
                Stream::Captured => self.unsaid.borrow_mut().push(text.to_owned()),
            },
        }
    }
}
