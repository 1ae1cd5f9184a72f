//! Searches and runs networks on folders of image files, as users have them.

use std::path::Path;

use paretune_model::builtin::{self, CLASSES, Part};
use serde_json::Value;

use super::Home;

/// Writes images of the built-in kind into a folder per class, every pixel as a square of `scale`
/// pixels.
fn write_images(root: &Path, count: usize, scale: usize) {
    let images = builtin::images(Part::Report, count);
    let [_, height, width] = images.dims;
    for index in 0..count {
        let class = CLASSES[images.label(index).expect("a label") as usize];
        let folder = root.join(class);
        std::fs::create_dir_all(&folder).expect("a folder");
        let pixels = images.image(index);
        let (wide, high) = ((width * scale) as u32, (height * scale) as u32);
        let picture = image::RgbImage::from_fn(wide, high, |x, y| {
            let at = y as usize / scale * width + x as usize / scale;
            image::Rgb([0, 1, 2].map(|channel| pixels[channel * height * width + at]))
        });
        picture.save(folder.join(format!("{index:03}.png"))).expect("written");
    }
}

fn model(home: &Home) -> String {
    let path = home.path("model.onnx");
    std::fs::write(&path, builtin::network_bytes()).expect("written");
    path.display().to_string()
}

const NORMALIZED: [&str; 4] = ["--mean", "128,128,128", "--std", "64,64,64"];
const SMALLER: [&str; 4] = ["--resize", "32x32", "--interpolation", "nearest"];

#[test]
fn photos_are_resized_in_the_search_and_by_the_bundle() {
    let home = Home::new();
    let model = model(&home);
    write_images(&home.path("small"), 120, 1);
    write_images(&home.path("large"), 120, 3);
    // Class names in the order of the network's outputs, which is not that of the alphabet.
    std::fs::write(home.path("classes.txt"), CLASSES.join("\n")).expect("written");
    let search = |data: &str, more: &[&str]| -> Vec<String> {
        let study = format!("study-{data}");
        let fixed = ["search", &model, "--headless", "--budget", "1trials", "--classes"];
        let rest = ["classes.txt", "--data", data, "--study", &study];
        fixed.iter().chain(&rest).chain(&NORMALIZED).chain(more).map(|&x| x.to_owned()).collect()
    };
    let run = |arguments: &[String], status: i32| -> String {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = home.run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        said
    };
    let refused = run(&search("large", &[]), 2);
    assert!(refused.contains("96x96") && refused.contains("--resize"), "{refused}");
    let said = run(&search("small", &[]), 0);
    assert!(said.contains("images: 120 PNG"), "{said}");
    assert!(said.contains("guessing among 10 classes would give 10.0 %"), "{said}");
    assert!(!said.contains("no better than guessing"), "{said}");
    run(&search("large", &SMALLER), 0);

    let accuracy = |bundle: &str, data: &str| -> f64 {
        let text = home.ok(&["run", bundle, "--data", data, "--json"]);
        let metrics: Value = serde_json::from_str(&text).expect("JSON");
        metrics["metrics"]["accuracy"].as_f64().expect("a number")
    };
    home.ok(&["export", "study-small", "--output", "a"]);
    home.ok(&["export", "study-large", "--output", "b"]);
    let (small, large) = (accuracy("a", "small"), accuracy("b", "large"));
    assert!(small > 0.8 && (small - large).abs() < 1e-12, "{small} {large}");
    assert!(home.fails(&["run", "a", "--data", "large"], 2).contains("96x96"));

    // Single files get names of classes.
    let file = home.path("large").join(CLASSES[3]).join("003.png").display().to_string();
    let text = home.ok(&["run", "b", &file, "--json"]);
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let classes = all["images"][0]["classes"].as_array().expect("classes");
    assert_eq!(classes.len(), 5);
    assert!(classes[0]["name"].as_str().is_some_and(|name| CLASSES.contains(&name)), "{all}");
    assert!(home.ok(&["run", "b", &file]).contains(" %  "));
}

#[test]
fn a_baseline_without_sense_is_said_before_the_search() {
    let home = Home::new();
    let model = model(&home);
    write_images(&home.path("data"), 60, 1);
    std::fs::write(home.path("classes.txt"), CLASSES.join("\n")).expect("written");
    let base = ["search", &model, "--data", "data", "--headless", "--budget", "1trials"];
    let fails = |more: &[&str]| home.fails(&[&base[..], more].concat(), 2);
    let wrong = fails(&["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]);
    assert!(wrong.contains("--scale 1"), "{wrong}");
    assert!(fails(&["--mean", "nan", "--std", "1"]).contains("finite"));
    let wrong = fails(&["--mean", "128", "--std", "64", "--scale", "1"]);
    assert!(wrong.contains("leave out `--scale 1`"), "{wrong}");
    // A folder with a part of the classes.
    std::fs::remove_dir_all(home.path("data").join(CLASSES[4])).expect("removed");
    let wrong = fails(&NORMALIZED);
    assert!(wrong.contains("9 class(es)") && wrong.contains("--classes FILE"), "{wrong}");
    // A study goes into a folder of its own.
    assert!(fails(&["--study", "data"]).contains("other contents"));
    assert!(fails(&["--tui", "--study", "new"]).contains("--headless"));

    // Mean and deviation that are forgotten show in the accuracy of the baseline.
    let config = home.ok(&["space", &model, "--json", "--backend", "cpu"]);
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let point = serde_json::json!({"id": "x", "config": config["default"]});
    std::fs::write(home.path("point.json"), point.to_string()).expect("written");
    let evaluate = |more: &[&str]| {
        let base = ["evaluate", &model, "--data", "data", "--classes", "classes.txt"];
        let rest = ["--backend", "cpu", "--images", "16", "--config", "point.json"];
        let output = home.run(&[&base[..], &rest, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let line: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(line["metrics"]["accuracy"].is_number(), "{line}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = evaluate(&["--mean", "100000", "--std", "1"]);
    assert!(said.contains("warning: "), "{said}");
    assert!(!evaluate(&NORMALIZED).contains("warning: "));
}
