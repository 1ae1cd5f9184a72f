//! The network screen: the configuration and the cost of each layer of the selected point.

use paretune_record::event::Inspected;
use paretune_record::front::FrontPoint;
use paretune_record::metric::Metric;
use paretune_record::step::StepCost;
use paretune_report::{LayerRow, choices, units};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table, Widget};

use super::front::sign;
use super::state::State;
use super::view::View;
use super::widgets::nothing_yet;

/// Width in columns from which on tunables and a time bar are shown.
const WIDE: u16 = 110;

pub(super) fn draw(area: Rect, buffer: &mut Buffer, state: &State, view: &View) {
    let Some(point) = view.selected(state) else {
        nothing_yet(area, buffer, state, view);
        return;
    };
    let theme = view.theme;
    let inspected = state.inspected.get(&point.id);
    let order: Vec<String> = match inspected {
        Some(inspected) => inspected.steps.iter().map(|step| step.name.clone()).collect(),
        None => state.order.clone(),
    };
    let choices = choices(&point.config, &order);
    let mut top = vec![head(point, inspected, view)];
    let global: Vec<String> =
        choices.global.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let pruned: Vec<String> = choices
        .channels
        .iter()
        .filter_map(|(group, share)| {
            let share: f64 = share.parse().ok().filter(|share| *share < 1.0)?;
            Some(format!("{group} {:.0} %", share * 100.0))
        })
        .collect();
    let channels = if pruned.is_empty() { "all".to_owned() } else { pruned.join(", ") };
    top.push(Line::raw(format!("{}; channels kept: {channels}", global.join(", "))));
    if choices.layers.is_empty() {
        top.push(Line::styled(
            "the configuration of a point that has left the front is in the journal only",
            theme.muted(),
        ));
    }
    let lines = top.len() as u16;
    for (line, text) in top.into_iter().enumerate() {
        text.render(Rect { y: area.y + line as u16, height: 1, ..area }, buffer);
    }
    let table = Rect { y: area.y + lines, height: area.height.saturating_sub(lines), ..area };
    let total = Totals::of(inspected);
    let visible = usize::from(table.height.saturating_sub(1));
    let rows: Vec<Row<'_>> = choices
        .layers
        .iter()
        .map(|layer| {
            let cost = inspected
                .and_then(|inspected| inspected.steps.iter().find(|step| step.name == layer.name));
            row(layer, cost, &total, area.width)
        })
        .chain(inspected.map(|inspected| rest(&choices.layers, inspected, &total, area.width)))
        .collect();
    let first = view.scroll.min(rows.len().saturating_sub(visible));
    let rows: Vec<Row<'_>> = rows.into_iter().skip(first).take(visible).collect();
    let wide = area.width >= WIDE;
    let mut widths = vec![
        Constraint::Fill(if wide { 2 } else { 1 }),
        Constraint::Length(4),
        Constraint::Length(5),
        Constraint::Length(20),
        Constraint::Length(9),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(7),
    ];
    let mut heads: Vec<Cell<'_>> =
        ["layer", "bits", "zeros", "algorithm"].into_iter().map(Cell::new).collect();
    heads.extend(["time", "share", "bytes", "ceiling"].into_iter().zip([9, 6, 8, 7]).map(right));
    if wide {
        widths.push(Constraint::Length(22));
        widths.push(Constraint::Fill(3));
        heads.extend([Cell::new(""), Cell::new("tunables")]);
    }
    let heads = Row::new(heads).style(theme.heading());
    Widget::render(Table::new(rows, widths).header(heads).column_spacing(1), table, buffer);
}

fn head(point: &FrontPoint, inspected: Option<&Inspected>, view: &View) -> Line<'static> {
    let theme = view.theme;
    let (mark, style) = sign(point, theme);
    let mut spans = vec![
        Span::styled(format!("{mark} "), style),
        Span::styled(units::short_id(&point.id).to_owned(), theme.heading()),
        Span::raw(format!(
            "  {}, {}, {}",
            units::shown(Metric::Accuracy, &point.metrics),
            units::shown(Metric::Latency, &point.metrics),
            units::shown(Metric::Size, &point.metrics)
        )),
    ];
    let hint = match inspected {
        Some(_) => "  ceiling: lower bound / measured time",
        None if view.inspection_requests.contains(&point.id) => {
            "  its layers will be timed after this trial"
        }
        None => "  its layers were not timed",
    };
    spans.push(Span::styled(hint, theme.muted()));
    Line::from(spans)
}

/// Total and longest time of the steps, to which their times are compared.
struct Totals {
    seconds: f64,
    longest: f64,
}

impl Totals {
    fn of(inspected: Option<&Inspected>) -> Self {
        let steps = inspected.map(|inspected| inspected.steps.as_slice()).unwrap_or_default();
        Self {
            seconds: steps.iter().map(|step| step.seconds).sum(),
            longest: steps.iter().map(|step| step.seconds).fold(0.0, f64::max),
        }
    }
}

fn row(layer: &LayerRow, cost: Option<&StepCost>, total: &Totals, width: u16) -> Row<'static> {
    let zeros: f64 = layer.sparsity.parse().unwrap_or(0.0);
    let zeros = if zeros > 0.0 { format!("{:.0} %", zeros * 100.0) } else { String::new() };
    let mut cells = vec![
        Cell::new(layer.name.clone()),
        Cell::new(layer.bits.clone()),
        Cell::new(zeros),
        Cell::new(layer.algorithm.clone()),
    ];
    cells.extend(figures(
        cost.map(|cost| (cost.seconds, cost.weight_bytes, cost.ceiling_share)),
        total,
    ));
    if width >= WIDE {
        cells.push(Cell::new(bar(cost.map_or(0.0, |cost| cost.seconds), total)));
        cells.push(Cell::new(layer.tunables.clone()));
    }
    Row::new(cells)
}

/// Combines all steps that are no layers with parameters of their own into one row.
fn rest(layers: &[LayerRow], inspected: &Inspected, total: &Totals, width: u16) -> Row<'static> {
    let others: Vec<&StepCost> = inspected
        .steps
        .iter()
        .filter(|step| layers.iter().all(|layer| layer.name != step.name))
        .collect();
    let seconds = others.iter().map(|step| step.seconds).sum();
    let bytes = others.iter().map(|step| step.weight_bytes).sum();
    let mut cells = vec![
        Cell::new(format!("{} others", others.len())),
        Cell::new(""),
        Cell::new(""),
        Cell::new(""),
    ];
    cells.extend(figures(Some((seconds, bytes, None)), total));
    if width >= WIDE {
        cells.push(Cell::new(bar(seconds, total)));
        cells.push(Cell::new("pools, additions, conversions"));
    }
    Row::new(cells)
}

fn figures(cost: Option<(f64, u64, Option<f64>)>, total: &Totals) -> Vec<Cell<'static>> {
    let Some((seconds, bytes, ceiling)) = cost else {
        return [9, 6, 8, 7].map(|width| right(("-", width))).to_vec();
    };
    let share = 100.0 * seconds / total.seconds.max(f64::MIN_POSITIVE);
    let ceiling = ceiling.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share));
    let bytes = if bytes > 0 { units::value(Metric::Size, bytes as f64) } else { "-".to_owned() };
    vec![
        right((&units::value(Metric::Latency, seconds), 9)),
        right((&format!("{share:.1} %"), 6)),
        right((&bytes, 8)),
        right((&ceiling, 7)),
    ]
}

/// Returns a bar whose length is proportional to the step's time.
fn bar(seconds: f64, total: &Totals) -> String {
    let cells = if total.longest > 0.0 { (22.0 * seconds / total.longest).round() } else { 0.0 };
    "▆".repeat(cells as usize)
}

fn right((text, width): (&str, usize)) -> Cell<'static> {
    Cell::new(format!("{text:>width$}"))
}
