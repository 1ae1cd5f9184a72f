//! Styles. Every mark has its own character, so that no meaning depends on colour alone.

use ratatui::style::{Color, Modifier, Style};

/// Styles of all drawn elements. Background and text are the terminal's own, so that light and dark
/// themes both work. The colours are among the 16 that users can adjust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Whether colours are used. Without them, only bold, dim and reversed are.
    pub color: bool,
}

impl Theme {
    /// Uses colours unless the environment variable `NO_COLOR` is set and not empty, or the
    /// terminal is `dumb`.
    #[must_use]
    pub fn from_environment() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { color: !no_color && !dumb }
    }

    fn colored(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    /// Returns the style of frames, labels and hints.
    #[must_use]
    pub fn muted(self) -> Style {
        // "Dim" is avoided, because it is often unreadable on light terminals.
        if self.color {
            self.colored(Color::DarkGray)
        } else {
            Style::new().add_modifier(Modifier::DIM)
        }
    }

    /// Returns the style of headings.
    #[must_use]
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Returns the style of points of the front that meet every limit.
    #[must_use]
    pub fn feasible(self) -> Style {
        self.colored(Color::Green)
    }

    /// Returns the style of points of the front that miss a limit.
    #[must_use]
    pub fn infeasible(self) -> Style {
        self.colored(Color::Red)
    }

    /// Returns the style of the best point.
    #[must_use]
    pub fn best(self) -> Style {
        self.colored(Color::Green).add_modifier(Modifier::BOLD)
    }

    /// Returns the style of the baseline.
    #[must_use]
    pub fn baseline(self) -> Style {
        self.colored(Color::Blue).add_modifier(Modifier::BOLD)
    }

    /// Returns the style of single techniques.
    #[must_use]
    pub fn technique(self) -> Style {
        self.colored(Color::Magenta)
    }

    /// Returns the style of limits.
    #[must_use]
    pub fn limit(self) -> Style {
        self.colored(Color::Red)
    }

    /// Returns the style of gauges and curves.
    #[must_use]
    pub fn accent(self) -> Style {
        self.colored(Color::Cyan)
    }

    /// Returns the style of warnings.
    #[must_use]
    pub fn warning(self) -> Style {
        self.colored(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// Returns the style of the selected element.
    #[must_use]
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
