//! Snapshots of every screen with a synthetic study, and invariants of the accumulated state.

use std::collections::BTreeSet;

use paretune_demo as demo;
use paretune_record::change::Change;
use paretune_record::event::{Changed, Event};
use paretune_record::metric::{Metric, Metrics};
use paretune_record::preference::Preference;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::Rect;

use super::dialog::Overlay;
use super::input::Action;
use super::{Command, ExportFormat, State, Tab, Theme, View, draw};

fn fold(events: &[Event]) -> State {
    let mut state = State::default();
    events.iter().for_each(|event| state.apply(event));
    state
}

/// Returns the state in the middle of a study with 150 trials.
fn running() -> State {
    let events = demo::study(150, true);
    let middle =
        events.iter().position(|event| matches!(event, Event::TrialStarted { number: 120, .. }));
    fold(&events[..middle.expect("trial 120") + 3])
}

fn picture(state: &State, view: &View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("test backend");
    terminal.draw(|frame| draw(frame, state, view)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let lines = buffer
        .content
        .chunks(usize::from(width))
        .map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

fn press(view: &mut View, state: &State, code: KeyCode) -> Vec<Action> {
    view.key(KeyEvent::new(code, KeyModifiers::NONE), state)
}

fn type_text(view: &mut View, state: &State, text: &str) {
    for letter in text.chars() {
        assert_eq!(press(view, state, KeyCode::Char(letter)), []);
    }
}

fn click(view: &mut View, state: &State, column: u16, row: u16) -> Vec<Action> {
    let kind = MouseEventKind::Down(MouseButton::Left);
    view.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }, state)
}

#[test]
fn every_screen_fits_small_and_large_terminals() {
    let state = running();
    for tab in Tab::ALL {
        let view = View { tab, clock: 76.0, ..View::default() };
        let name = tab.title().to_lowercase();
        insta::assert_snapshot!(format!("{name}-80x24"), picture(&state, &view, 80, 24));
        insta::assert_snapshot!(format!("{name}-200x60"), picture(&state, &view, 200, 60));
    }
    let view = View { overlay: Overlay::Help, ..View::default() };
    insta::assert_snapshot!("help-80x24", picture(&state, &view, 80, 24));
}

#[test]
fn layers_show_what_they_cost() {
    let state = fold(&demo::study(150, true));
    let view = View { tab: Tab::Network, ..View::default() };
    insta::assert_snapshot!("layers-80x24", picture(&state, &view, 80, 24));
    insta::assert_snapshot!("layers-200x60", picture(&state, &view, 200, 20));
}

#[test]
fn the_end_and_the_nearest_miss_are_shown() {
    let state = fold(&demo::study(150, false));
    insta::assert_snapshot!("missed-80x24", picture(&state, &View::default(), 80, 24));
    let view = View { tab: Tab::Progress, ..View::default() };
    insta::assert_snapshot!("ended-80x24", picture(&state, &view, 80, 24));
}

#[test]
fn before_the_first_trial_preparation_is_shown() {
    let events = demo::study(10, true);
    assert!(
        picture(&State::default(), &View::default(), 80, 24).contains("waiting for the search")
    );
    assert!(
        picture(&fold(&events[..3]), &View::default(), 80, 24).contains("decoding images: 50 %")
    );
}

#[test]
fn any_size_can_be_drawn() {
    let states = [State::default(), running(), fold(&demo::study(30, false))];
    for (width, height) in
        [(1, 1), (39, 12), (40, 12), (41, 13), (60, 14), (80, 10), (119, 19), (120, 12), (300, 15)]
    {
        for tab in Tab::ALL {
            for (x, y) in Metric::objectives().zip(Metric::objectives().cycle().skip(1)) {
                let overlay = if x == Metric::Accuracy { Overlay::Help } else { Overlay::None };
                let view =
                    View { tab, x, y, overlay, all: x == Metric::Latency, ..View::default() };
                states.iter().for_each(|state| drop(picture(state, &view, width, height)));
            }
        }
    }
}

#[test]
fn without_colour_nothing_is_coloured() {
    let view = View { theme: Theme { color: false }, ..View::default() };
    let state = running();
    for tab in Tab::ALL {
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).expect("test backend");
        let view = View { tab, ..view.clone() };
        terminal.draw(|frame| draw(frame, &state, &view)).expect("drawn");
        let plain = |cell: &ratatui::buffer::Cell| {
            cell.fg == ratatui::style::Color::Reset && cell.bg == ratatui::style::Color::Reset
        };
        assert!(terminal.backend().buffer().content.iter().all(plain), "{tab:?}");
    }
}

#[test]
fn the_cursor_walks_along_the_front() {
    let state = running();
    let mut view = View::default();
    let order: Vec<_> = view.ordered(&state).iter().map(|point| point.id.clone()).collect();
    press(&mut view, &state, KeyCode::Home);
    for id in &order {
        assert_eq!(view.selected(&state).map(|point| &point.id), Some(id));
        press(&mut view, &state, KeyCode::Right);
    }
    assert_eq!(view.selected, order.last().cloned(), "the end is the end");
    press(&mut view, &state, KeyCode::Char('b'));
    assert!(view.selected(&state).is_some_and(|point| point.best));
    // If the selected point leaves the front, the selection moves to the best one.
    view.selected = Some("gone".to_owned());
    assert!(view.selected(&state).is_some_and(|point| point.best));
}

#[test]
fn keys_pause_and_end_the_search() {
    let state = running();
    let mut view = View::default();
    assert_eq!(press(&mut view, &state, KeyCode::Char('p')), [Action::Send(Command::Pause)]);
    assert_eq!(press(&mut view, &state, KeyCode::Char('p')), [Action::Send(Command::Resume)]);
    assert_eq!(
        view.key(KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL), &state),
        [Action::Suspend]
    );
    assert_eq!(press(&mut view, &state, KeyCode::Char('q')), [Action::Send(Command::Quit)]);
    assert_eq!(press(&mut view, &state, KeyCode::Char('q')), [Action::Leave]);
    let ended = fold(&demo::study(20, true));
    assert_eq!(press(&mut View::default(), &ended, KeyCode::Char('q')), [Action::Leave]);
}

#[test]
fn what_is_asked_for_can_be_changed() {
    let state = running();
    let mut view = View::default();
    press(&mut view, &state, KeyCode::Char('l'));
    assert!(picture(&state, &view, 80, 24).contains("latency<0.9ms, accuracy-drop<1%"));
    (0..40).for_each(|_| drop(press(&mut view, &state, KeyCode::Backspace)));
    type_text(&mut view, &state, "speed<");
    assert_eq!(press(&mut view, &state, KeyCode::Enter), []);
    assert!(picture(&state, &view, 80, 24).contains("has no number"));
    (0..6).for_each(|_| drop(press(&mut view, &state, KeyCode::Backspace)));
    type_text(&mut view, &state, "<2ms");
    let [Action::Send(Command::Change(Change::Limits(limits)))] =
        &press(&mut view, &state, KeyCode::Enter)[..]
    else {
        panic!("limits are changed")
    };
    assert_eq!((limits[0].metric, limits[0].value), (Metric::Latency, 2e-3));

    press(&mut view, &state, KeyCode::Char('+'));
    let longer = press(&mut view, &state, KeyCode::Enter);
    let Some(Action::Send(Command::Change(Change::Budget(budget)))) = longer.first() else {
        panic!("the budget is extended")
    };
    assert_eq!(budget.seconds, Some(600.0));
    let preferred = press(&mut view, &state, KeyCode::Char('o'));
    assert_eq!(
        preferred,
        [Action::Send(Command::Change(Change::Prefer(Preference::Metric(Metric::Latency))))]
    );

    // The search confirms the change by an event.
    let mut state = state;
    let front: Vec<_> =
        state.front.iter().filter(|point| point.feasible).take(3).cloned().collect();
    state.apply(&Event::Changed(Box::new(Changed {
        limits: limits.clone(),
        prefer: Preference::Metric(Metric::Latency),
        budget: "600s".into(),
        budget_seconds: Some(600.0),
        budget_trials: None,
        hypervolume: 0.3,
        front: front.clone(),
    })));
    assert_eq!(state.limits(), limits);
    assert_eq!(state.front.len(), 3);
    let fastest = front.iter().map(latency_of).fold(f64::INFINITY, f64::min);
    assert_eq!(state.best().map(latency_of), Some(fastest));
    assert!(
        state
            .explored
            .iter()
            .all(|point| point.feasible == (point.spread[&Metric::Latency][1] < 2e-3))
    );
}

#[test]
fn marked_points_are_kept_and_exported() {
    let state = running();
    let mut view = View::default();
    let best = state.best().expect("a best point").clone();
    press(&mut view, &state, KeyCode::Char('e'));
    assert!(picture(&state, &view, 80, 24).contains(&format!("resnet20-{}-bundle", &best.id[..8])));
    press(&mut view, &state, KeyCode::Right);
    let exported = press(&mut view, &state, KeyCode::Enter);
    let path = format!("resnet20-{}.onnx", &best.id[..8]).into();
    assert_eq!(exported, [Action::Export(vec![(best.clone(), ExportFormat::Onnx, path)])]);

    press(&mut view, &state, KeyCode::Home);
    for _ in 0..2 {
        let kept = press(&mut view, &state, KeyCode::Char(' '));
        assert!(matches!(&kept[..], [Action::Send(Command::Change(Change::Keep(_)))]), "{kept:?}");
        press(&mut view, &state, KeyCode::Right);
    }
    press(&mut view, &state, KeyCode::Char('e'));
    let exported = press(&mut view, &state, KeyCode::Enter);
    assert!(matches!(&exported[..], [Action::Export(wishes)] if wishes.len() == 2), "{exported:?}");
}

#[test]
fn the_table_is_sorted_and_narrowed_down() {
    let state = running();
    let mut view = View::default();
    press(&mut view, &state, KeyCode::Char('/'));
    type_text(&mut view, &state, "latency<1ms, feasible");
    press(&mut view, &state, KeyCode::Enter);
    let shown = view.ordered(&state);
    let expected =
        state.front.iter().filter(|point| point.feasible && latency_of(point) < 1e-3).count();
    assert!(expected > 0 && expected < state.front.len());
    assert_eq!(shown.len(), expected);
    press(&mut view, &state, KeyCode::Esc);
    press(&mut view, &state, KeyCode::Char('a'));
    assert_eq!(view.ordered(&state).len(), state.front.len() + state.explored.len());
}

#[test]
fn the_mouse_reaches_tabs_points_and_rows() {
    let state = running();
    let mut view = View { area: Rect::new(0, 0, 80, 24), ..View::default() };
    click(&mut view, &state, 12, 0);
    assert_eq!(view.tab, Tab::Archive);
    click(&mut view, &state, 30, 2);
    assert_eq!(view.sort, Metric::Latency);
    let third = view.ordered(&state)[2].id.clone();
    view.selected = Some(view.ordered(&state)[0].id.clone());
    click(&mut view, &state, 10, 5);
    assert_eq!(view.selected, Some(third));
    // A click on the best point selects it, wherever it is drawn.
    let mut view = View { area: Rect::new(0, 0, 80, 24), selected: None, ..View::default() };
    let text = picture(&state, &view, 80, 24);
    let (row, line) =
        text.lines().enumerate().skip(2).find(|(_, line)| line.contains('★')).expect("the best");
    let column = line.chars().position(|sign| sign == '★').expect("the sign");
    view.selected = Some(state.front[0].id.clone());
    click(&mut view, &state, column as u16, row as u16);
    assert_eq!(view.selected.as_deref(), state.best().map(|point| point.id.as_str()));
    // The network screen requests the layers of a point only once.
    view.selected = None;
    assert!(matches!(
        &click(&mut view, &state, 25, 0)[..],
        [Action::Send(Command::Change(Change::Inspect(_)))]
    ));
    assert_eq!(press(&mut view, &state, KeyCode::Down), []);
}

/// A user who never read the documentation finds these on the first screen.
#[test]
fn the_first_screen_tells_what_matters() {
    let text = picture(&running(), &View::default(), 80, 24);
    for expected in [
        "best",
        "the most accurate of",
        "e exports it",
        "what if?",
        "? help",
        "B baseline",
        "◆ technique",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
}

#[test]
fn both_axes_reach_every_pair_of_metrics() {
    let state = State::default();
    let mut view = View::default();
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        for _ in 0..4 {
            press(&mut view, &state, KeyCode::Char('x'));
            assert_ne!(view.x, view.y);
            seen.insert((view.x, view.y));
        }
        press(&mut view, &state, KeyCode::Char('y'));
    }
    assert_eq!(seen.len(), 12);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// At every moment, ids are unique, no point of the front dominates another, and at most one
    /// point is the best. At the end, the state equals the archive.
    #[test]
    fn folding_keeps_the_front_consistent(trials in 1_u64..120, easy: bool, cut in 0.0..=1.0) {
        let events = demo::study(trials, easy);
        let state = fold(&events[..(cut * events.len() as f64) as usize]);
        let ids: BTreeSet<_> = state.front.iter().map(|point| &point.id).collect();
        prop_assert_eq!(ids.len(), state.front.len());
        prop_assert!(state.front.iter().filter(|point| point.best).count() <= 1);
        for a in &state.front {
            for b in &state.front {
                let (a, b) = (&a.metrics, &b.metrics);
                let worse = |metric: Metric| {
                    let cost = |metrics: &Metrics| metric.cost(metrics.get(metric).unwrap());
                    cost(b) > cost(a)
                };
                prop_assert!(!Metric::objectives().all(worse));
            }
        }
        let answered = state.front.len() + state.explored.len() + state.failed as usize;
        if state.ending.is_none() {
            prop_assert_eq!(answered as u64, state.trials);
        }
        let ended = fold(&events);
        let Some(Event::Finished { front, .. }) = events.last() else { panic!("a study ends") };
        prop_assert_eq!(&ended.front, &front.points);
    }

    /// Events in any order do not cause a panic.
    #[test]
    fn any_order_of_events_is_survived(order in prop::collection::vec(any::<prop::sample::Index>(), 1..60)) {
        let events = demo::study(20, true);
        let shuffled: Vec<_> = order.iter().map(|index| index.get(&events).clone()).collect();
        let state = fold(&shuffled);
        for tab in Tab::ALL {
            drop(picture(&state, &View { tab, ..View::default() }, 80, 24));
        }
    }
}

fn latency_of(point: &paretune_record::front::FrontPoint) -> f64 {
    point.metrics.get(Metric::Latency).unwrap()
}
