//! Files that describe how a network's images are prepared: `preprocessor_config.json` of Hugging
//! Face, `config.json` of timm, and TOML with the names of the command line's options.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use paretune_kernels::file;
use paretune_kernels::image::{Channels, Interpolation, Resize};
use paretune_record::request::Normalization;
use serde_json::{Map, Value};

use super::images::normalization;

/// Settings of images that a file gives; whatever it does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Preset {
    pub resize: Option<Resize>,
    pub crop: Option<bool>,
    pub interpolation: Option<Interpolation>,
    pub channels: Option<Channels>,
    pub normalization: Option<Normalization>,
    pub classes: Vec<String>,
}

impl Preset {
    /// Reads a file of any of the three kinds.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or asks for something that is not supported.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = file::read_text(path)
            .with_context(|| format!("--preprocess: cannot read `{}`", path.display()))?;
        Self::parse(&text).with_context(|| format!("--preprocess `{}`", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        if !text.trim_start().starts_with('{') {
            let table: toml::Table = text.parse().context("is neither JSON nor TOML")?;
            return from_toml(&table);
        }
        let value: Value = serde_json::from_str(text).context("is no JSON")?;
        let Value::Object(all) = &value else { bail!("is no JSON object") };
        let timm = all.get("pretrained_cfg").and_then(Value::as_object);
        let has = |name: &str| all.contains_key(name);
        match timm {
            Some(config) => from_timm(config, all),
            None if has("input_size") => from_timm(all, all),
            None if ["image_mean", "do_normalize", "do_resize", "do_rescale"]
                .into_iter()
                .any(has) =>
            {
                from_hugging_face(all)
            }
            None => bail!(
                "is neither preprocessor_config.json of Hugging Face (image_mean, size) nor \
                 config.json of timm (pretrained_cfg)"
            ),
        }
    }
}

/// Reads the settings of Hugging Face's image processors.
fn from_hugging_face(all: &Map<String, Value>) -> anyhow::Result<Preset> {
    let on = |name: &str, default: bool| match all.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_bool().ok_or_else(|| anyhow!("{name} is neither true nor false")),
    };
    let mut preset = Preset::default();
    for unknown in ["do_pad", "do_thumbnail", "do_align_long_axis"] {
        if on(unknown, false)? {
            bail!("{unknown} is not supported");
        }
    }
    let size = all.get("size").map(|size| sides("size", size)).transpose()?;
    let crop = all.get("crop_size").map(|size| sides("crop_size", size)).transpose()?;
    if on("do_resize", size.is_some())? {
        let size = size.ok_or_else(|| anyhow!("do_resize needs size"))?;
        preset.resize = Some(size);
        // ConvNeXt states the size of the input, and resizes by the crop's share below 384 pixels.
        if let (Some(share), Resize::Shorter(side)) = (number(all, "crop_pct")?, size) {
            preset.resize = Some(if side < 384 {
                Resize::Shorter(whole(f64::from(side) / fraction("crop_pct", share)?)?)
            } else {
                Resize::Exact(side, side)
            });
            preset.crop = Some(side < 384);
        }
    }
    if on("do_center_crop", crop.is_some())? {
        preset.crop = Some(true);
    } else if preset.crop.is_none() {
        preset.crop = Some(false);
    }
    if let Some(code) = number(all, "resample")? {
        preset.interpolation = Some(match code as i64 {
            0 => Interpolation::Nearest,
            1 => Interpolation::Lanczos,
            2 => Interpolation::Bilinear,
            3 => Interpolation::Bicubic,
            code => bail!("resample {code} is not supported; 0 to 3 are"),
        });
    }
    if on("do_flip_channel_order", false)? {
        preset.channels = Some(Channels::Bgr);
    }
    // value = ((pixel * factor - offset) - mean) / std
    let factor = if on("do_rescale", true)? {
        number(all, "rescale_factor")?.unwrap_or(1.0 / 255.0)
    } else {
        1.0
    };
    if !(factor.is_normal() && factor > 0.0) {
        bail!("rescale_factor {factor} is not positive");
    }
    let offset = f64::from(u8::from(on("rescale_offset", false)?));
    let normalize = on("do_normalize", all.contains_key("image_mean"))?;
    let list = |name: &str, default: f64| {
        if normalize { numbers(all, name) } else { Ok(Some(vec![default; 3])) }
    };
    let (mean, std) = (list("image_mean", 0.0)?, list("image_std", 1.0)?);
    if let (Some(mean), Some(std)) = (mean, std) {
        #[expect(clippy::cast_possible_truncation, reason = "single precision is meant")]
        let scaled = |numbers: &[f64], offset: f64| -> Vec<f32> {
            numbers.iter().map(|number| ((number + offset) / factor) as f32).collect()
        };
        preset.normalization =
            Some(Normalization { mean: scaled(&mean, offset), std: scaled(&std, 0.0) });
    } else if normalize {
        bail!("do_normalize needs image_mean and image_std");
    }
    Ok(preset)
}

/// Reads a size of Hugging Face: a number, a pair, or an object.
fn sides(name: &str, value: &Value) -> anyhow::Result<Resize> {
    let side = |value: &Value| whole(value.as_f64().ok_or_else(|| anyhow!("{name} is no number"))?);
    match value {
        Value::Number(_) => Ok(Resize::Shorter(side(value)?)),
        Value::Array(pair) if pair.len() == 2 => {
            Ok(Resize::Exact(side(&pair[0])?, side(&pair[1])?))
        }
        Value::Object(object) => {
            match (object.get("shortest_edge"), object.get("height"), object.get("width")) {
                (Some(edge), None, None) if !object.contains_key("longest_edge") => {
                    Ok(Resize::Shorter(side(edge)?))
                }
                (None, Some(height), Some(width)) => Ok(Resize::Exact(side(height)?, side(width)?)),
                _ => bail!("{name} has neither shortest_edge alone nor height and width"),
            }
        }
        _ => bail!("{name} is no size"),
    }
}

/// Reads the settings of a network of timm. `all` may name the classes.
fn from_timm(config: &Map<String, Value>, all: &Map<String, Value>) -> anyhow::Result<Preset> {
    let size = numbers(config, "test_input_size")?
        .or(numbers(config, "input_size")?)
        .ok_or_else(|| anyhow!("input_size is missing"))?;
    let [_, height, width] = size[..] else {
        bail!("input_size is not [channels, height, width]");
    };
    let share = number(config, "test_crop_pct")?.or(number(config, "crop_pct")?).unwrap_or(0.875);
    let share = fraction("crop_pct", share)?;
    let scaled = |side: f64| whole((side / share).floor());
    let resize = match config.get("crop_mode").and_then(Value::as_str).unwrap_or("center") {
        "squash" => Resize::Exact(scaled(height)?, scaled(width)?),
        "center" if height == width => Resize::Shorter(scaled(height)?),
        mode => {
            bail!("crop_mode {mode} of a size {height}x{width} is not supported; give --resize")
        }
    };
    let interpolation = match config.get("interpolation").and_then(Value::as_str) {
        None | Some("random") => Interpolation::Bilinear,
        Some(name) => name.parse().map_err(|problem: String| anyhow!(problem))?,
    };
    let list = |name: &str, default: f64| -> anyhow::Result<Vec<f32>> {
        let numbers = numbers(config, name)?.unwrap_or_else(|| vec![default; size[0] as usize]);
        #[expect(clippy::cast_possible_truncation, reason = "single precision is meant")]
        Ok(numbers.into_iter().map(|number| number as f32).collect())
    };
    let classes = all
        .get("label_names")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>());
    Ok(Preset {
        resize: Some(resize),
        crop: Some(true),
        interpolation: Some(interpolation),
        channels: None,
        normalization: Some(normalization(&list("mean", 0.0)?, &list("std", 1.0)?, 1.0)?),
        classes: classes.unwrap_or_default(),
    })
}

/// Reads the names of the command line's options.
fn from_toml(table: &toml::Table) -> anyhow::Result<Preset> {
    const KNOWN: [&str; 8] =
        ["resize", "crop", "interpolation", "mean", "std", "scale", "channels", "classes"];
    if let Some(unknown) = table.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        bail!("`{unknown}` is unknown; {} are possible", KNOWN.join(", "));
    }
    let text = |name: &str| -> anyhow::Result<Option<String>> {
        match table.get(name) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text.clone())),
            Some(toml::Value::Integer(number)) => Ok(Some(number.to_string())),
            Some(toml::Value::Array(sides)) => {
                let sides: Vec<String> = sides.iter().map(ToString::to_string).collect();
                Ok(Some(sides.join("x")))
            }
            Some(_) => bail!("`{name}` is of the wrong type"),
        }
    };
    let list = |name: &str| -> anyhow::Result<Option<Vec<f32>>> {
        let Some(value) = table.get(name) else { return Ok(None) };
        let single = [value.clone()];
        let values = value.as_array().map_or(&single[..], Vec::as_slice);
        #[expect(clippy::cast_possible_truncation, reason = "single precision is meant")]
        let one = |value: &toml::Value| {
            let number = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
            number.map(|number| number as f32).ok_or_else(|| anyhow!("`{name}` has no number"))
        };
        values.iter().map(one).collect::<anyhow::Result<Vec<f32>>>().map(Some)
    };
    let wrong = |problem: String| anyhow!(problem);
    let scale = match list("scale")?.as_deref() {
        None | Some([255.0]) => 255.0,
        Some([1.0]) => 1.0,
        Some(_) => bail!("`scale` may be 255 or 1"),
    };
    let normalized = match (list("mean")?, list("std")?) {
        (Some(mean), Some(std)) => Some(normalization(&mean, &std, scale)?),
        (None, None) => None,
        _ => bail!("`mean` and `std` belong together"),
    };
    let crop = match text("crop")?.as_deref() {
        None => None,
        Some("center") => Some(true),
        Some("none") => Some(false),
        Some(other) => bail!("`crop` may be center or none, not {other}"),
    };
    let classes = match table.get("classes") {
        None => Vec::new(),
        Some(names) => names.clone().try_into().context("`classes` is no list of names")?,
    };
    Ok(Preset {
        resize: text("resize")?.map(|size| size.parse()).transpose().map_err(wrong)?,
        crop,
        interpolation: text("interpolation")?
            .map(|name| name.parse())
            .transpose()
            .map_err(wrong)?,
        channels: text("channels")?.map(|name| name.parse()).transpose().map_err(wrong)?,
        normalization: normalized,
        classes,
    })
}

fn number(all: &Map<String, Value>, name: &str) -> anyhow::Result<Option<f64>> {
    match all.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| anyhow!("{name} is no number")),
    }
}

/// Reads a list of numbers; a single number stands for three channels.
fn numbers(all: &Map<String, Value>, name: &str) -> anyhow::Result<Option<Vec<f64>>> {
    let wrong = || anyhow!("{name} is no list of numbers");
    match all.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(values)) => {
            let values: Option<Vec<f64>> = values.iter().map(Value::as_f64).collect();
            values.map(Some).ok_or_else(wrong)
        }
        Some(value) => Ok(Some(vec![value.as_f64().ok_or_else(wrong)?; 3])),
    }
}

fn fraction(name: &str, share: f64) -> anyhow::Result<f64> {
    if share > 0.0 && share <= 1.0 { Ok(share) } else { bail!("{name} {share} is not in 0 to 1") }
}

/// Converts a side to whole pixels, truncated.
fn whole(side: f64) -> anyhow::Result<u32> {
    if !(1.0..=f64::from(paretune_kernels::image::MAX_SIDE)).contains(&side) {
        bail!("a side of {side} pixels is impossible");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just checked")]
    Ok(side as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f32], wanted: &[f32]) -> bool {
        found.len() == wanted.len()
            && found.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 1e-3 * b.abs().max(1.0))
    }

    const IMAGENET: [[f32; 3]; 2] = [[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]];

    #[test]
    fn hugging_face() {
        let preset = Preset::parse(
            r#"{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true,
                "do_normalize": true, "do_rescale": true, "do_resize": true,
                "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
                "resample": 3, "rescale_factor": 0.00392156862745098,
                "size": {"shortest_edge": 256}}"#,
        )
        .unwrap();
        assert_eq!(preset.resize, Some(Resize::Shorter(256)));
        assert_eq!((preset.crop, preset.interpolation), (Some(true), Some(Interpolation::Bicubic)));
        let normalization = preset.normalization.unwrap();
        assert!(
            close(&normalization.mean, &IMAGENET[0]) && close(&normalization.std, &IMAGENET[1])
        );

        // ConvNeXt, ViT, MobileViT.
        let preset = |text: &str| Preset::parse(text).unwrap();
        let convnext =
            preset(r#"{"do_resize": true, "size": {"shortest_edge": 224}, "crop_pct": 0.875}"#);
        assert_eq!((convnext.resize, convnext.crop), (Some(Resize::Shorter(256)), Some(true)));
        let vit = preset(
            r#"{"do_normalize": true, "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5], "size": 224, "do_resize": true}"#,
        );
        assert!(close(&vit.normalization.unwrap().mean, &[127.5; 3]));
        let mobile = preset(
            r#"{"do_rescale": true, "do_flip_channel_order": true, "do_resize": true,
            "size": {"shortest_edge": 288}, "do_center_crop": true, "crop_size": 256}"#,
        );
        assert_eq!(mobile.channels, Some(Channels::Bgr));
        let normalization = mobile.normalization.unwrap();
        assert!(close(&normalization.std, &[255.0; 3]) && normalization.mean == [0.0; 3]);
        assert!(Preset::parse(r#"{"do_resize": true, "do_pad": true, "size": 3}"#).is_err());
        assert!(Preset::parse(r#"{"architectures": []}"#).is_err());
    }

    #[test]
    fn timm() {
        let preset = Preset::parse(
            r#"{"architecture": "resnet18", "num_classes": 2, "label_names": ["cat", "dog"],
                "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.95,
                "interpolation": "bicubic", "crop_mode": "center",
                "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}"#,
        )
        .unwrap();
        assert_eq!(preset.resize, Some(Resize::Shorter(235)));
        assert_eq!(preset.interpolation, Some(Interpolation::Bicubic));
        assert_eq!(preset.classes, ["cat", "dog"]);
        assert!(close(&preset.normalization.unwrap().std, &IMAGENET[1]));
        let squashed = Preset::parse(
            r#"{"input_size": [3, 256, 192], "crop_pct": 1.0, "crop_mode": "squash"}"#,
        );
        assert_eq!(squashed.unwrap().resize, Some(Resize::Exact(256, 192)));
        assert!(Preset::parse(r#"{"input_size": [3, 8, 8], "crop_mode": "border"}"#).is_err());
    }

    #[test]
    fn toml_with_the_names_of_options() {
        let preset = Preset::parse(
            "resize = [40, 32]\ncrop = \"none\"\ninterpolation = \"nearest\"\nscale = 1\n\
             mean = [0.5]\nstd = 0.25\nchannels = \"gray\"\nclasses = [\"a\", \"b\"]\n",
        )
        .unwrap();
        assert_eq!(preset.resize, Some(Resize::Exact(40, 32)));
        assert_eq!((preset.crop, preset.channels), (Some(false), Some(Channels::Gray)));
        let normalization = preset.normalization.unwrap();
        assert_eq!((normalization.mean, normalization.std), (vec![127.5], vec![63.75]));
        assert_eq!(preset.classes, ["a", "b"]);
        assert_eq!(Preset::parse("resize = 256").unwrap().resize, Some(Resize::Shorter(256)));
        for wrong in ["size = 3", "mean = [1.0]", "crop = \"left\"", "resize = \"big\""] {
            assert!(Preset::parse(wrong).is_err(), "{wrong}");
        }
    }
}
