//! Scenarios: scripts in Rhai that boot a machine, drive and stall its CPUs, inspect them, and say
//! what must come out. This module runs one. The functions of the language are in the modules
//! below, and all of them are verbs of the [`Operator`]. `docs/scenarios.md` is the reference.

mod cpu;
mod deed_handle;
mod deeds;
mod failure;
mod machine;
mod params;
mod printing;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use rhai::{Dynamic, Engine, EvalAltResult, NativeCallContext, Position};

use super::operator::{Operator, OperatorError, Wait};
use super::{Ending, Stream, output, recorder};
pub use crate::control::script_failure::{Failure, FailureKind};
use crate::provenance::Input;
use crate::stats::marks::Actor;
use crate::text;
use failure::bad;
use params::Params;
pub use params::Unasked;

/// How long a wait goes on, unless the script says otherwise.
const LIMIT: Duration = Duration::from_secs(10);

/// Least time that a machine is given to start its workload. With hundreds of vCPUs it takes
/// seconds.
const BOOT: Duration = Duration::from_secs(60);

/// Most steps of the interpreter for one script: some seconds, if it does nothing else.
const MOST_OPERATIONS: u64 = 100_000_000;

/// Steps between two checks whether the run was cut short.
const STEPS_UNSEEN: u64 = 1024;

/// The machine that a script asks for. What it leaves out is as on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootRequest {
    /// The guest image.
    pub guest: Option<PathBuf>,
    /// Number of vCPUs.
    pub vcpus: Option<u32>,
    /// MiB of RAM.
    pub memory: Option<u64>,
    /// The initrd.
    pub initrd: Option<PathBuf>,
    /// The guest's command line.
    pub append: Option<String>,
    /// The names of the IPIs that the wire holds from the first instruction on.
    pub hold: Vec<String>,
}

/// A machine that was booted for a script.
#[derive(Debug)]
pub struct Booted {
    /// Its operator.
    pub operator: Arc<Operator>,
    /// Its vCPUs enter the guest once this is dropped.
    pub standstill: Sender<()>,
}

/// Boots a machine for a script. The error says why it could not.
pub type Boot = dyn Fn(BootRequest) -> Result<Booted, String>;

/// What a script is given beside the means to boot machines.
#[derive(Debug, Clone)]
pub struct ScriptInput {
    /// Whether a script that boots no machine itself gets one, from the command line.
    pub machine: bool,
    /// Parameters that it can read by name.
    pub params: BTreeMap<String, String>,
    /// Where what it prints goes while there is no machine with a console.
    pub console: Stream,
    /// Whether that keeps its control characters.
    pub raw_console: bool,
    /// As in [`Config`](crate::Config).
    pub interrupted: Arc<AtomicI32>,
}

/// What came of a script.
#[derive(Debug)]
pub struct Performed {
    /// Where and why it stopped, if it did before its end. Its current machine has been ended then.
    pub result: Result<(), Failure>,
    /// The parameters that it was given in vain.
    pub unasked: Vec<Unasked>,
}

/// A script, read and checked.
#[derive(Debug)]
pub struct Script {
    file: PathBuf,
    text: String,
}

impl Script {
    /// Reads `file` and checks its syntax.
    ///
    /// # Errors
    /// [`Failure`] says where the error is.
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

    /// The file that it was read from, for the report.
    pub fn input(&self) -> Input {
        Input::new(&self.file, self.text.as_bytes())
    }

    /// Runs the script to its end. Then the last machine is told to finish if its guest takes
    /// commands, and otherwise waited for.
    pub fn run(&self, boot: Box<Boot>, given: ScriptInput) -> Performed {
        let context = Rc::new(ScriptContext {
            boot,
            has_machine: given.machine,
            params: Params::new(given.params),
            console: given.console,
            raw_console: given.raw_console,
            interrupted: given.interrupted,
            has_booted: Cell::new(false),
            current: RefCell::default(),
            limit: Cell::new(LIMIT),
            unsaid: RefCell::default(),
            cut_short: RefCell::default(),
        });
        recorder::act_for(Actor::Script(1));
        let result = self
            .perform(&context)
            .map_err(|error| Failure::of(&self.file, &error));
        if let (Err(failure), Some(operator)) = (&result, context.leave()) {
            if let Some((line, _)) = failure.place {
                recorder::act_for(Actor::Script(line));
            }
            operator.note(|| format!("stops: {}", failure.message));
            operator.end_as(Ending::Script(failure.clone()));
            operator.wait_end();
        }
        Performed {
            result,
            unasked: context.params.unasked(),
        }
    }

    fn perform(&self, context: &Rc<ScriptContext>) -> Result<(), Box<EvalAltResult>> {
        let engine = context.engine(&self.text);
        let program = engine.compile(&self.text)?;
        engine.run_ast(&program)?;
        if context.has_machine && !context.has_booted.get() {
            context.boot(BootRequest::default())?;
        }
        // What it does not say itself is done at its end.
        recorder::act_for(Actor::Script(self.text.lines().count()));
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

/// What the script does from now on, it does in this place.
fn stand_at(place: Position) {
    if let Some(line) = place.line() {
        recorder::act_for(Actor::Script(line));
    }
}

/// The state of a running script.
struct ScriptContext {
    boot: Box<Boot>,
    /// As in [`ScriptInput`].
    has_machine: bool,
    params: Params,
    /// As in [`ScriptInput`].
    console: Stream,
    raw_console: bool,
    /// As in [`ScriptInput`].
    interrupted: Arc<AtomicI32>,
    has_booted: Cell<bool>,
    /// The current machine.
    current: RefCell<Option<Arc<Operator>>>,
    limit: Cell<Duration>,
    /// What the script has printed without a machine, if the console is captured. It goes to the
    /// console of the next machine.
    unsaid: RefCell<Vec<String>>,
    /// Why the script must stop, if an earlier machine was cut short.
    cut_short: RefCell<Option<String>>,
}

impl ScriptContext {
    /// The engine for the script `text`.
    fn engine(self: &Rc<Self>, text: &str) -> Engine {
        let mut engine = bare_engine();
        // Deeds are registered first, so that functions with the same name and types replace them.
        deeds::register(&mut engine, text);
        machine::register(&mut engine, self);
        cpu::register(&mut engine, self);
        deed_handle::register(&mut engine, self);
        wire::register(&mut engine, self);
        printing::register(&mut engine);
        failure::register(&mut engine);
        // The language's own `sleep` could outlive the machine.
        engine.register_fn("sleep", |_: i64| no_clock());
        engine.register_fn("sleep", |_: f64| no_clock());

        // Constants for scripts. They are resolved here because functions of a script do not see
        // global variables.
        #[expect(
            deprecated,
            reason = "Rhai marks it as volatile, and has nothing else for functions"
        )]
        engine.on_var(|name, _, context| {
            // A variable of the script with the same name takes precedence.
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
        engine.on_debug(move |text, _, place| {
            stand_at(place);
            context.say(&format!("{place}: {text}"));
        });
        engine
    }

    /// The current machine.
    fn operator(&self) -> Result<Arc<Operator>, Box<EvalAltResult>> {
        if self.has_machine && !self.has_booted.get() {
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

    /// The current machine, for what the script does in this place.
    fn act(&self, at: &NativeCallContext) -> Result<Arc<Operator>, Box<EvalAltResult>> {
        stand_at(at.call_position());
        self.operator()
    }

    /// Ends the current machine, and boots another.
    fn boot(&self, wanted: BootRequest) -> Result<(), Box<EvalAltResult>> {
        self.close()?;
        if let Some(why) = self.cut_short() {
            return Err(OperatorError::Over(why).into());
        }
        self.has_booted.set(true);
        let held = wanted.hold.clone();
        let Booted {
            operator,
            standstill,
        } = (self.boot)(wanted).map_err(bad)?;
        operator.drive(true);
        *self.current.borrow_mut() = Some(Arc::clone(&operator));
        self.unsaid
            .take()
            .iter()
            .for_each(|text| operator.say(text));
        for name in &held {
            operator.wire_hold_all(operator.ipis_named(name)?)?;
        }
        drop(standstill);
        if !held.is_empty() {
            // The boot can wait for what is held.
            operator.note(|| format!("boots this machine, and holds {}", held.join(", ")));
            return Ok(());
        }
        // Before the start a script could only disturb the boot. A guest without a lab may never say
        // that its workload starts, and its script waits for what it prints.
        if operator.has_lab() {
            self.wait_started(&operator)?;
        }
        operator.note(|| "boots this machine".to_owned());
        Ok(())
    }

    /// Waits until the workload of a machine has started, or the machine is over.
    fn wait_started(&self, operator: &Operator) -> Result<(), OperatorError> {
        match operator.wait_started(Wait::up_to(self.limit.get().max(BOOT))) {
            Err(OperatorError::Over(_)) => Ok(()),
            started => started,
        }
    }

    /// Ends the current machine, if there is one.
    fn close(&self) -> Result<(), Box<EvalAltResult>> {
        let Some(operator) = self.current.borrow().clone() else {
            return Ok(());
        };
        if operator.over().is_none() {
            if operator.has_lab() && !operator.is_started() {
                // The boot can wait for what was held. Until the workload starts, the guest does
                // not say whether it can be told to finish.
                operator.let_go()?;
                self.wait_started(&operator)?;
            }
            let ended = match operator.takes_commands() {
                true => operator.finish(self.wait()),
                false => operator.let_go(),
            };
            match ended {
                // It has ended by itself meanwhile.
                Err(OperatorError::Over(_)) if !operator.takes_commands() => {}
                ended => ended?,
            }
        }
        operator.drive(false);
        operator.wait_end();
        self.leave();
        Ok(())
    }

    /// Gives up the current machine.
    fn leave(&self) -> Option<Arc<Operator>> {
        let left = self.current.take();
        if let Some(why) = left.as_ref().and_then(|operator| operator.cut_short()) {
            self.cut_short.borrow_mut().get_or_insert(why.to_owned());
        }
        left
    }

    /// Why the script must stop, if the current machine or an earlier one was cut short, or a signal
    /// has come meanwhile.
    fn cut_short(&self) -> Option<String> {
        let current = self.current.borrow();
        let now = current.as_ref().and_then(|operator| operator.cut_short());
        now.map(str::to_owned)
            .or_else(|| self.cut_short.borrow().clone())
            .or_else(|| match self.interrupted.load(Ordering::Relaxed) {
                0 => None,
                signal => Some(format!("signal {signal} came")),
            })
    }

    /// The limit of a wait.
    fn wait(&self) -> Wait<'static> {
        Wait::up_to(self.limit.get())
    }

    fn say(&self, text: &str) {
        match &*self.current.borrow() {
            Some(operator) => operator.say(text),
            None => match self.console {
                Stream::Captured => self.unsaid.borrow_mut().push(text.to_owned()),
                // A write error is no reason to stop, as with a machine's console.
                stream => _ = output::print(stream, self.raw_console, text),
            },
        }
    }
}
