//! The specimen: a machine whose CPUs go on one at a time, from stop to stop, and whose states can
//! be saved and restored. It is the transition system that a search explores: which choices there
//! are, what each of them leads to, and whether anything broke. It makes no choice itself.

mod as_system;
mod booting;
mod breach;
mod buffering;
mod conditions;
pub mod data_race;
mod errors;
mod judging;
mod keeping;
mod lines;
mod machine;
#[cfg(test)]
pub mod model;
mod on_stack;
mod passed_over;
mod passing;
pub mod place;
mod racing;
mod relaxed;
mod signal;
mod single;
mod stacks;
mod starting;
mod state;
mod stepping;
mod stop_points;
mod stopped;
mod store_buffer;
mod system_state;
mod waiting;
mod walking;

pub use booting::Setup;
pub use breach::Breach;
pub use buffering::Buffering;
pub use errors::SpecimenError;
pub use machine::Specimen;
pub use signal::Signal;
pub use state::State;
pub use stepping::{MOST_STOPS, Moved};
pub use stopped::{Stop, Stopped};
pub use store_buffer::{BufferedStore, Entry, StoreBuffer};
pub use walking::{OnInstruction, Paused};
