//! A screen as an SVG file for documents, with every cell as a character on a grid.

use std::fmt::Write;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use super::draw::draw;
use super::state::State;
use super::view::View;

/// Width and height of a cell in pixels.
const CELL: (f64, f64) = (8.4, 17.0);
const MARGIN: f64 = 10.0;
const INK: &str = "#d8dbe2";
const PAPER: &str = "#16181d";

/// Draws the screen of a terminal of the given size.
#[must_use]
pub fn picture(state: &State, view: &View, width: u16, height: u16) -> String {
    // Drawing into memory cannot fail.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| draw(frame, state, view));
    svg(terminal.backend().buffer())
}

fn svg(buffer: &Buffer) -> String {
    let area = buffer.area;
    let (width, height) = (
        f64::from(area.width) * CELL.0 + 2.0 * MARGIN,
        f64::from(area.height) * CELL.1 + 2.0 * MARGIN,
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" \
         height=\"{height:.0}\">\n<style>text{{font:14px \"DejaVu Sans \
              Mono\",Menlo,Consolas,monospace;white-space:pre}}\
         </style>\n<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{PAPER}\"/>\n"
    );
    for y in 0..area.height {
        let row: Vec<&Cell> = (0..area.width).filter_map(|x| buffer.cell((x, y))).collect();
        let mut x = 0;
        while x < row.len() {
            let style = look(row[x]);
            let length = row[x..].iter().take_while(|cell| look(cell) == style).count();
            let text: String = row[x..x + length].iter().map(|cell| cell.symbol()).collect();
            run(&mut out, x, y, length, &text, &style);
            x += length;
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Style of a cell: foreground, background, bold.
#[derive(PartialEq)]
struct Look {
    ink: &'static str,
    paper: Option<&'static str>,
    bold: bool,
}

fn look(cell: &Cell) -> Look {
    let ink = if cell.modifier.contains(Modifier::DIM) {
        "#7d8590"
    } else {
        color(cell.fg).unwrap_or(INK)
    };
    let paper = color(cell.bg);
    let bold = cell.modifier.contains(Modifier::BOLD);
    if cell.modifier.contains(Modifier::REVERSED) {
        return Look { ink: paper.unwrap_or(PAPER), paper: Some(ink), bold };
    }
    Look { ink, paper, bold }
}

fn color(color: Color) -> Option<&'static str> {
    Some(match color {
        Color::Reset => return None,
        Color::Red | Color::LightRed => "#f0707d",
        Color::Green | Color::LightGreen => "#5bbf78",
        Color::Yellow | Color::LightYellow => "#e0b84a",
        Color::Blue | Color::LightBlue => "#79b1ee",
        Color::Magenta | Color::LightMagenta => "#d58fe0",
        Color::Cyan | Color::LightCyan => "#5cc4cf",
        Color::DarkGray | Color::Gray => "#8b919b",
        Color::Black => "#000000",
        _ => INK,
    })
}

fn run(out: &mut String, x: usize, y: u16, length: usize, text: &str, look: &Look) {
    let (left, top) = (MARGIN + x as f64 * CELL.0, MARGIN + f64::from(y) * CELL.1);
    let width = length as f64 * CELL.0;
    if let Some(paper) = look.paper {
        let _ = writeln!(
            out,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
             fill=\"{paper}\"/>",
            CELL.1
        );
    }
    if text.trim().is_empty() {
        return;
    }
    let bold = if look.bold { " font-weight=\"bold\"" } else { "" };
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        out,
        "<text x=\"{left:.1}\" y=\"{:.1}\" fill=\"{}\" textLength=\"{width:.1}\" \
         lengthAdjust=\"spacingAndGlyphs\"\
         {bold}>{escaped}</text>",
        top + 13.0,
        look.ink
    );
}
