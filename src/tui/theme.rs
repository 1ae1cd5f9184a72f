//! Styles. Meaning never rests on colour alone: every mark has its own character.

use ratatui::style::{Color, Modifier, Style};

/// The styles of everything that is drawn. Background and text are the terminal's own, so that light and dark both
/// work; the colours are of the sixteen that terminals let users adjust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Whether colours are used; without them, only bold, dim and reversed are.
    pub color: bool,
}

impl Theme {
    /// Colours unless the environment variable `NO_COLOR` is set and not empty, or the terminal is `dumb`.
    #[must_use]
    pub fn from_environment() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { color: !no_color && !dumb }
    }

    fn colored(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    /// Frames, labels, hints.
    #[must_use]
    pub fn quiet(self) -> Style {
        // Not "dim": on light terminals that is often unreadable.
        if self.color { self.colored(Color::DarkGray) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    /// Headings.
    #[must_use]
    pub fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Points of the front that meet every limit.
    #[must_use]
    pub fn feasible(self) -> Style {
        self.colored(Color::Green)
    }

    /// Points of the front that do not.
    #[must_use]
    pub fn infeasible(self) -> Style {
        self.colored(Color::Red)
    }

    /// The best point.
    #[must_use]
    pub fn best(self) -> Style {
        self.colored(Color::Green).add_modifier(Modifier::BOLD)
    }

    /// The untouched network.
    #[must_use]
    pub fn baseline(self) -> Style {
        self.colored(Color::Blue).add_modifier(Modifier::BOLD)
    }

    /// One technique alone.
    #[must_use]
    pub fn technique(self) -> Style {
        self.colored(Color::Magenta)
    }

    /// Limits.
    #[must_use]
    pub fn limit(self) -> Style {
        self.colored(Color::Red)
    }

    /// Gauges and curves.
    #[must_use]
    pub fn accent(self) -> Style {
        self.colored(Color::Cyan)
    }

    /// What needs attention.
    #[must_use]
    pub fn warning(self) -> Style {
        self.colored(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// What the cursor is on.
    #[must_use]
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
