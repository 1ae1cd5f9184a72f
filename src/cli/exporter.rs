//! Export of points from the terminal UI.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use paretune_record::metric::Metric;
use paretune_study::session::Control;

use crate::export;
use crate::report;
use crate::tui;

/// Returns the function that exports points for the screen. The search is paused meanwhile, because
/// building a bundle would disturb its timing.
pub(super) fn exporter(folder: PathBuf, control: Arc<Control>) -> tui::Exporter {
    Arc::new(move |point, format, path| {
        let paused = control.pause.swap(true, Ordering::Relaxed);
        let written = match format {
            tui::ExportFormat::Bundle => super::export::bundle(&folder, point, path),
            tui::ExportFormat::Onnx => super::export::onnx_file(&folder, point, path),
            tui::ExportFormat::Json => export::json_file(point, path).map_err(anyhow::Error::from),
        };
        control.pause.store(paused, Ordering::Relaxed);
        match written {
            Ok(bytes) => Ok(format!(
                "{} is in {}: {}",
                report::units::short_id(&point.id),
                path.display(),
                report::units::value(Metric::Size, bytes as f64)
            )),
            Err(error) => Err(error.to_string()),
        }
    })
}
