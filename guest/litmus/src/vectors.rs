//! The one vector of this guest's own.

kit::vectors! {
    /// Read the variables that others have asked for.
    pub ASKED = 0xfb, "asked", Call;
}
