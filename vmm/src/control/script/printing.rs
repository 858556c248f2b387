//! `print` in a script. What it prints is made as in the language; here it is only noted in which
//! line that is, which the language does not tell who prints.

use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::stand_at;

/// The language's function by which a value becomes a text.
const TO_STRING: &str = "to_string";

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("print", |at: NativeCallContext, text: ImmutableString| {
        stand_at(at.call_position());
        text
    });
    // The language has functions of its own for lists and maps, which go before one for all values.
    engine.register_fn("print", |at: NativeCallContext, list: Array| {
        print(&at, list.into())
    });
    engine.register_fn("print", |at: NativeCallContext, map: Map| {
        print(&at, map.into())
    });
    engine.register_fn("print", |at: NativeCallContext, value: Dynamic| {
        print(&at, value)
    });
}

fn print(at: &NativeCallContext, mut value: Dynamic) -> String {
    stand_at(at.call_position());
    let text = at.call_native_fn_raw(TO_STRING, true, &mut [&mut value]);
    text.map_or_else(|_| value.to_string(), |text| text.to_string())
}
