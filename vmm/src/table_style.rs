//! The style of every table for people, whichever part of the VMM prints it. Knows no table.

use comfy_table::{LineStyle, TableStyle};

/// A line under the header and none elsewhere.
pub const RULED: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
