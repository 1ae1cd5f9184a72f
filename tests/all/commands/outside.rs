//! Checks exported files in their target programs: ONNX Runtime, Optuna, a browser. Each test
//! prints that it is skipped if its program is missing. `PARETUNE_PYTHON` and `PARETUNE_BROWSER`
//! name programs that are not on the path.

use std::path::{Path, PathBuf};
use std::process::Command;

use paretune_model::builtin::{self, Part};
use serde_json::Value;

use super::{Home, write_npy};

/// Finds a Python that can import `module`.
fn python(module: &str) -> Option<PathBuf> {
    let named = std::env::var_os("PARETUNE_PYTHON").map(PathBuf::from);
    let found = named.into_iter().chain([PathBuf::from("python3")]).find(|python| {
        let output = Command::new(python).args(["-c", &format!("import {module}")]).output();
        output.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        eprintln!("SKIPPED: no Python with {module}; name one in PARETUNE_PYTHON");
    }
    found
}

fn script(python: &Path, name: &str, arguments: &[&Path]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name);
    let output = Command::new(python).arg(script).args(arguments).output().expect("Python starts");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Checks all exports of the study in `home`, which has the baseline and all layers in 8 bits.
pub fn exports_run_elsewhere(home: &Home, front: &Value) {
    let journal =
        std::fs::read_to_string(home.path("study").join("journal.jsonl")).expect("the journal");
    let trials: Vec<Value> = journal
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == "trial_finished")
        .collect();

    // The JSON export conforms to the published schema.
    let point: Value =
        serde_json::from_str(&home.ok(&["export", "study", "--to", "json"])).expect("JSON");
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema/point.schema.json");
    let schema: Value =
        serde_json::from_slice(&std::fs::read(schema).expect("the schema")).expect("JSON");
    let keys =
        |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let known = keys(&schema["properties"]);
    assert!(keys(&point).iter().all(|key| known.contains(key)), "{point}");
    let required = schema["required"].as_array().expect("names");
    assert!(required.iter().all(|name| name.as_str().is_some_and(|name| !point[name].is_null())));
    assert_eq!(keys(&point["metrics"]), keys(&schema["properties"]["metrics"]["properties"]));

    // T4 has every trial with its configuration and figures.
    let t4: Value =
        serde_json::from_str(&home.ok(&["export", "study", "--to", "t4"])).expect("JSON");
    assert_eq!(t4["schema_version"], "1.0.0");
    let results = t4["results"].as_array().expect("results");
    assert_eq!(results.len(), trials.len());
    for (result, trial) in results.iter().zip(&trials) {
        assert_eq!(result["invalidity"], "correct");
        assert_eq!(result["times"]["runtimes"][0], trial["known"]["latency"][0]);
        assert!(result["configuration"].as_object().is_some_and(|object| object.len() > 20));
        assert!(
            result["timestamp"].as_str().is_some_and(|time| time.starts_with("20")),
            "{result}"
        );
    }
    home.fails(&["export", "study", "--to", "t4", "--pick", "0"], 2);

    home.ok(&["export", "study", "--to", "optuna", "--output", "optuna.log"]);
    if let Some(python) = python("optuna") {
        let read = script(&python, "check_optuna.py", &[&home.path("optuna.log")]);
        assert_eq!(read["metrics"], front["objectives"]);
        assert_eq!(read["directions"][0], "MAXIMIZE");
        assert_eq!(read["directions"][1], "MINIMIZE");
        let read = read["trials"].as_array().expect("trials");
        assert_eq!(read.len(), trials.len());
        for (read, trial) in read.iter().zip(&trials) {
            assert_eq!(read["id"], trial["id"]);
            let whole = !trial["point"].is_null();
            assert_eq!(read["state"], if whole { "COMPLETE" } else { "PRUNED" });
            if whole {
                let metrics = &trial["point"]["metrics"];
                let names = ["accuracy", "latency", "size", "memory"];
                assert_eq!(
                    read["values"],
                    Value::from_iter(names.map(|name| metrics[name].clone()))
                );
                // The limit is met exactly if the constraint is not positive.
                let met = read["constraints"][0].as_f64().is_some_and(|miss| miss <= 0.0);
                assert_eq!(Value::from(met), trial["point"]["feasible"]);
                let config = trial["point"]["config"].as_object().expect("a configuration");
                for (name, value) in config {
                    let same = read["params"][name] == *value
                        || read["params"][name]
                            .as_f64()
                            .is_some_and(|number| Some(number) == value.as_f64());
                    assert!(same, "{name}: {value} became {}", read["params"][name]);
                }
            }
        }
    }

    in_a_browser(home, front);
    let Some(python) = python("onnxruntime") else { return };
    let images = builtin::images(Part::Report, 1024);
    let pixels = 3 * 32 * 32;
    let mut x = Vec::with_capacity(images.len() * pixels);
    for index in 0..images.len() {
        for (position, pixel) in images.image(index).iter().enumerate() {
            let channel = position / (32 * 32);
            x.push((f32::from(*pixel) - builtin::MEAN[channel]) / builtin::STD[channel]);
        }
    }
    let labels: Vec<f32> =
        (0..images.len()).map(|index| images.label(index).expect("a label") as f32).collect();
    let count = images.len() as u64;
    write_npy(&home.path("x.npy"), &[count, 3, 32, 32], &x);
    write_npy(&home.path("labels.npy"), &[count, 1], &labels);
    let points = front["points"].as_array().expect("points");
    assert!(!points.is_empty());
    for point in points {
        let id = point["id"].as_str().expect("an id");
        home.ok(&["export", "study", "--to", "onnx", "--pick", id, "--output", "model.onnx"]);
        home.ok(&["export", "study", "--pick", id, "--output", "bundle"]);
        home.ok(&["run", "bundle", "--threads", "1", "--input", "x.npy", "--output", "y.npy"]);
        let files = ["model.onnx", "x.npy", "y.npy", "labels.npy"].map(|name| home.path(name));
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let found = script(&python, "check_onnx.py", &files);
        let number = |name: &str| found[name].as_f64().expect("a number");
        assert!((number("accuracy") - number("expected")).abs() <= 0.003, "{found}");
        assert!(number("agreement") > 0.98 && number("difference") < 0.04, "{found}");
        let eight_bits = point["origin"] == "8 bits everywhere";
        assert_eq!(found["operators"]["QuantizeLinear"].as_u64().is_some(), eight_bits, "{found}");
        assert_eq!(found["properties"]["paretune.configuration"], id);
    }
}

/// The HTML page of the study in `home` loads nothing, draws every point, and reacts to the mouse.
fn in_a_browser(home: &Home, front: &Value) {
    home.ok(&["show", "study", "--html", "page.html"]);
    let page = std::fs::read_to_string(home.path("page.html")).expect("the page");
    // The page refers to no other file.
    for loader in ["src=", "href=", "@import", "url(", "fetch("] {
        assert!(!page.contains(loader), "{loader}");
    }
    let named = std::env::var_os("PARETUNE_BROWSER").map(PathBuf::from);
    let names = ["chromium", "chromium-browser", "google-chrome"].map(PathBuf::from);
    let works = |browser: &PathBuf| {
        Command::new(browser).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    let Some(browser) = named.into_iter().chain(names).find(works) else {
        eprintln!("SKIPPED: no Chromium; name one in PARETUNE_BROWSER");
        return;
    };
    // A script at the end hovers over the best point, then chooses other axes. Its findings go to
    // the title.
    let probe = "<script>{
const circle = document.querySelector('#plot circle.best').getBoundingClientRect();
document.getElementById('plot').dispatchEvent(new MouseEvent('mousemove',
  {clientX: circle.x + circle.width / 2, clientY: circle.y + circle.height / 2, bubbles: true}));
const tip = document.getElementById('tip').textContent;
const select = document.getElementById('axis-x');
select.value = 'size'; select.dispatchEvent(new Event('change'));
document.title = [tip, document.getElementById('xtitle').textContent,
  document.querySelectorAll('#plot circle[tabindex]').length,
  document.querySelectorAll('#compare tr').length,
  document.querySelectorAll('#choices table tr').length].join(' | ');
}</script></body>";
    std::fs::write(home.path("probed.html"), page.replace("</body>", probe)).expect("written");
    let mut command = Command::new(browser);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
    ]);
    command.args(["--disable-dev-shm-usage", "--window-size=1200,1400", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", home.path("browser").display()));
    command.arg(format!("file://{}", home.path("probed.html").display()));
    let output = command.output().expect("the browser starts");
    let document = String::from_utf8_lossy(&output.stdout);
    let title = document.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    let seen: Vec<&str> = title.expect("a title").split(" | ").collect();
    assert_eq!(seen.len(), 5, "{seen:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(
        seen[0].contains("(best)") && seen[0].contains("accuracy") && seen[0].contains("memory"),
        "{seen:?}"
    );
    assert!(seen[1].starts_with("size ("), "{seen:?}");
    assert_eq!(seen[2], front["points"].as_array().expect("points").len().to_string());
    assert_eq!(seen[3], "4", "heads, the baseline, a single technique, the chosen point");
    assert!(seen[4].parse::<usize>().is_ok_and(|rows| rows > 5), "{seen:?}");
}

/// Runs a search in a real terminal, that of tmux, and reads the screen cell by cell.
#[cfg(unix)]
#[test]
fn a_search_is_driven_in_a_terminal() {
    let there = Command::new("tmux").arg("-V").output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("SKIPPED: no tmux");
        return;
    }
    let home = Home::new();
    let terminal = Tmux { socket: home.path("tmux") };
    let program = env!("CARGO_BIN_EXE_paretune");
    let command = format!(
        "cd '{}' && PARETUNE_HOME='{}' exec '{program}' search --tui --strategy nsga2 \
         --budget 3trials --study study",
        home.path("").display(),
        home.path("home").display()
    );
    terminal.ask(&["new-session", "-d", "-x", "80", "-y", "24", &command]);
    terminal.ask(&["set-option", "-g", "remain-on-exit", "on"]);
    terminal.wait_for("1 Front");
    // The screen returns after a suspension, which tmux continues at once.
    terminal.keys(&["C-z"]);
    terminal.wait_for("2 Archive");
    terminal.keys(&["4"]);
    terminal.wait_for("strategy");
    terminal.keys(&["?"]);
    terminal.wait_for("Any key closes this");
    terminal.keys(&["x", "1"]);
    terminal.ask(&["resize-window", "-x", "120", "-y", "40"]);
    terminal.wait_for("done: the budget is used up");
    let screen = terminal.wait_for("the most accurate of");
    assert!(screen.contains("baseline") && screen.contains("best"), "{screen}");
    terminal.keys(&["2"]);
    terminal.wait_for("points of the front by accuracy");
    terminal.keys(&["3"]);
    terminal.wait_for("ceiling");
    terminal.keys(&["e"]);
    terminal.wait_for("Enter: write");
    terminal.keys(&["Enter"]);
    terminal.wait_for(" is in builtin-");
    terminal.keys(&["q"]);
    // The screen is restored, and the final message stands on it.
    let screen = terminal.wait_for("Export:");
    assert!(!screen.contains("1 Front"), "{screen}");
    let bundles = std::fs::read_dir(home.path(""))
        .expect("the folder")
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().join("plan.bin").is_file()));
    assert_eq!(bundles.count(), 1);
}

#[cfg(unix)]
pub(super) struct Tmux {
    pub(super) socket: PathBuf,
}

#[cfg(unix)]
impl Tmux {
    pub(super) fn ask(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(["-f", "/dev/null"]).args(arguments);
        let output =
            command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color").output().expect("tmux");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    /// Returns the screen as soon as it shows `text`.
    pub(super) fn wait_for(&self, text: &str) -> String {
        let begun = std::time::Instant::now();
        loop {
            let screen = self.ask(&["capture-pane", "-p"]);
            if screen.contains(text) {
                return screen;
            }
            assert!(begun.elapsed().as_secs() < 240, "`{text}` does not appear:\n{screen}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

#[cfg(unix)]
impl Drop for Tmux {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        // Nothing is left to do if the session is gone already.
        let _ = command.arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}
