//! Reports of results for people: figures with units, tables, plots, plain progress and the final
//! summary.
//!
//! This module reads the output of a study (`front.json`) and its events, and makes no decisions.

#![forbid(unsafe_code)]

pub mod axis;
mod characterize;
mod csv;
mod html;
mod layers;
mod plain;
mod relax;
mod summary;
mod svg;
mod table;
mod techniques;
pub mod units;

pub use characterize::{characterization, curves};
pub use csv::csv;
pub use html::{PageData, html};
pub use layers::{Choices, LayerRow, choices};
pub use plain::PlainProgress;
pub use relax::{Relaxation, relaxations};
pub use summary::{quoted, summary, why, why_of};
pub use svg::svg;
pub use table::{TableStyle, table};
pub use techniques::{Technique, label, metrics, on_terms_of, techniques};

/// Formats the value of a parameter as users write it, without quotes around texts.
#[must_use]
pub fn setting(value: &paretune_spaces::Value) -> String {
    serde_json::to_value(value).map_or_else(
        |_| String::new(),
        |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    )
}

#[cfg(test)]
mod tests;
