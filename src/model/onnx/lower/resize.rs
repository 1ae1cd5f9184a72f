//! Lowering of `Resize` and `Upsample`: one interpolation with fixed weights for each axis.

use paretune_kernels::ValueId;
use paretune_kernels::operator::Operator;
use paretune_kernels::plan::tensor::{Picks, TensorOperator};

use super::select::ranged;
use crate::onnx::importer::{Importer, Item, one};
use crate::onnx::node::{Node, resolve_axis};

/// Largest number of elements that an axis may get.
const MAX_EXTENT: usize = 1 << 16;

/// Attributes of a resize that all axes share.
struct Resize {
    mode: Mode,
    place: String,
    nearest: String,
    cubic: f32,
    exclude_outside: bool,
    antialias: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// Sizes of one axis, and the part of it that `tf_crop_and_resize` takes.
#[derive(Clone, Copy)]
struct Axis {
    from: usize,
    to: usize,
    scale: f32,
    region: [f32; 2],
}

/// Lowers `Resize` and `Upsample`.
pub fn resize(importer: &mut Importer, node: &Node<'_>) -> Result<Vec<Item>, String> {
    let input = importer.activation(node, 0)?;
    let lead = importer.lead();
    let dims = importer.dims(input).to_vec();
    let rank = dims.len() + lead;
    let old = node.operator == "Upsample" || node.opset < 11;
    let attributes = attributes(node, old)?;
    let axes: Vec<usize> = match node.ints("axes")? {
        Some(axes) => {
            axes.iter().map(|&axis| resolve_axis(axis, rank)).collect::<Result<_, _>>()?
        }
        None => (0..rank).collect(),
    };
    let wanted = wanted(importer, node, &dims, &axes)?;
    let regions = if attributes.place == "tf_crop_and_resize" {
        importer.tensor(node, 1)?.numbers()?.to_vec()
    } else {
        Vec::new()
    };
    if !regions.is_empty() && regions.len() != 2 * axes.len() {
        return Err(format!("has {} borders for {} axes", regions.len(), axes.len()));
    }
    let mut value = input;
    let mut inside: Vec<(usize, Vec<bool>)> = Vec::new();
    for (index, (&axis, &(to, scale))) in axes.iter().zip(&wanted).enumerate() {
        let Some(axis) = axis.checked_sub(lead) else {
            if scale == 1.0 || (to == 1 && scale.is_nan()) {
                continue;
            }
            return Err("resizes the batch, which is not supported".into());
        };
        let region = if regions.is_empty() {
            [0.0, 1.0]
        } else {
            [regions[index], regions[index + axes.len()]]
        };
        let sizes = Axis { from: dims[axis], to, scale, region };
        if regions.is_empty() && to == dims[axis] && scale == 1.0 {
            continue;
        }
        if !regions.is_empty() {
            let last = (sizes.from - 1) as f32;
            let places = (0..to).map(|at| attributes.place(at, sizes));
            inside.push((axis, places.map(|x| x >= 0.0 && x <= last).collect()));
        }
        let exact = (scale * dims[axis] as f32 - to as f32).abs() < 1e-4;
        if attributes.place == "align_corners" && !exact {
            return Err(format!(
                "aligns corners with a factor of {scale} on {} elements, of which ONNX and ONNX \
                 Runtime have different opinions",
                dims[axis]
            ));
        }
        value = attributes.along(importer, value, axis, sizes)?;
    }
    if inside.iter().any(|(_, places)| places.contains(&false)) {
        value = outside(importer, node, value, &inside)?;
    }
    Ok(one(value))
}

fn attributes(node: &Node<'_>, old: bool) -> Result<Resize, String> {
    let text = |name: &str, default: &str| -> Result<String, String> {
        Ok(node.text(name)?.map_or(default.to_owned(), std::borrow::Cow::into_owned))
    };
    let mode = match text("mode", "nearest")?.as_str() {
        "nearest" => Mode::Nearest,
        "linear" | "bilinear" => Mode::Linear,
        "cubic" => Mode::Cubic,
        other => return Err(format!("its mode `{other}` does not exist")),
    };
    let place = text("coordinate_transformation_mode", "half_pixel")?;
    let known = [
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_half_pixel_for_nn",
        "tf_crop_and_resize",
    ];
    if !known.contains(&place.as_str()) {
        return Err(format!("its coordinates `{place}` are not supported"));
    }
    let nearest = text("nearest_mode", "round_prefer_floor")?;
    if !["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"].contains(&nearest.as_str()) {
        return Err(format!("its nearest_mode `{nearest}` does not exist"));
    }
    Ok(Resize {
        mode,
        place: if old { "asymmetric".into() } else { place },
        nearest: if old { "floor".into() } else { nearest },
        cubic: node.float("cubic_coeff_a", -0.75)?,
        exclude_outside: node.flag("exclude_outside", false)?,
        antialias: node.flag("antialias", false)?,
    })
}

/// Returns the new size and the factor of each of `axes`.
fn wanted(
    importer: &Importer,
    node: &Node<'_>,
    dims: &[usize],
    axes: &[usize],
) -> Result<Vec<(usize, f32)>, String> {
    let lead = importer.lead();
    let from = |axis: usize| axis.checked_sub(lead).map_or(1, |axis| dims[axis]);
    let checked = |size: f64| {
        if size >= 1.0 && size <= MAX_EXTENT as f64 {
            Ok(size as usize)
        } else {
            Err(format!("resizes an axis to {size} elements"))
        }
    };
    let (scales_at, sizes_at) = match (node.operator.as_str(), node.opset) {
        ("Upsample", ..9) => (None, None),
        ("Upsample", _) | (_, ..11) => (Some(1), None),
        _ => (Some(2), Some(3)),
    };
    let sizes = sizes_at.map(|index| importer.optional_tensor(node, index)).transpose()?.flatten();
    if let Some(sizes) = sizes.filter(|sizes| sizes.len() > 0) {
        let symbols = sizes.symbols()?;
        if symbols.len() != axes.len() {
            return Err(format!("has {} sizes for {} axes", symbols.len(), axes.len()));
        }
        let mut found = Vec::with_capacity(axes.len());
        for (&axis, size) in axes.iter().zip(symbols) {
            found.push(match *size {
                crate::onnx::tensor::Int::Batch if axis < lead => (1, 1.0),
                crate::onnx::tensor::Int::Batch => {
                    return Err("has a size that depends on the number of images".into());
                }
                crate::onnx::tensor::Int::Known(size) if axis < lead => {
                    let same = Some(size) == importer.batch() || size == 1;
                    (1, if same { 1.0 } else { 2.0 })
                }
                crate::onnx::tensor::Int::Known(size) => {
                    let size = checked(size as f64)?;
                    (size, (size as f64 / from(axis) as f64) as f32)
                }
            });
        }
        let policy = node.text("keep_aspect_ratio_policy")?;
        let larger = match policy.as_deref() {
            None | Some("stretch") => return Ok(found),
            Some("not_larger") => false,
            Some("not_smaller") => true,
            Some(other) => return Err(format!("its policy `{other}` does not exist")),
        };
        let scales = found.iter().map(|&(_, scale)| scale);
        let scale = if larger {
            scales.fold(f32::NEG_INFINITY, f32::max)
        } else {
            scales.fold(f32::INFINITY, f32::min)
        };
        return axes
            .iter()
            .map(|&axis| {
                let size = (f64::from(scale) * from(axis) as f64 + 0.5).floor();
                Ok((checked(size)?, scale))
            })
            .collect();
    }
    let scales = match scales_at {
        None => match node.floats("scales")? {
            Some(scales) => scales.to_vec(),
            // Operator set 1 named the two factors.
            None => {
                vec![1.0, 1.0, node.float("height_scale", 0.0)?, node.float("width_scale", 0.0)?]
            }
        },
        Some(index) => importer.tensor(node, index)?.numbers()?.to_vec(),
    };
    if scales.len() != axes.len() {
        return Err(format!("has {} factors for {} axes", scales.len(), axes.len()));
    }
    axes.iter()
        .zip(scales)
        .map(|(&axis, scale)| Ok((checked((from(axis) as f32 * scale).floor().into())?, scale)))
        .collect()
}

impl Resize {
    /// Returns the place in the input of element `at` of the output. Single precision, as the
    /// nearest element at a tie depends on it.
    fn place(&self, at: usize, axis: Axis) -> f32 {
        let Axis { from, to, scale, region: [start, end] } = axis;
        let (x, last) = (at as f32, (from - 1) as f32);
        match self.place.as_str() {
            "align_corners" if to == 1 => 0.0,
            "align_corners" => x * last / (to - 1) as f32,
            "asymmetric" => x / scale,
            "pytorch_half_pixel" if to == 1 => 0.0,
            "tf_half_pixel_for_nn" => (x + 0.5) / scale,
            "half_pixel_symmetric" => {
                let adjustment = to as f32 / (scale * from as f32);
                let center = from as f32 / 2.0;
                center * (1.0 - adjustment) + (x + 0.5) / scale - 0.5
            }
            "tf_crop_and_resize" if to == 1 => 0.5 * (start + end) * last,
            "tf_crop_and_resize" => start * last + x * (end - start) * last / (to - 1) as f32,
            _ => (x + 0.5) / scale - 0.5,
        }
    }

    fn along(
        &self,
        importer: &mut Importer,
        value: ValueId,
        axis: usize,
        sizes: Axis,
    ) -> Result<ValueId, String> {
        importer.spend(sizes.to)?;
        let last = sizes.from as i64 - 1;
        if self.mode == Mode::Nearest {
            let list = (0..sizes.to).map(|at| {
                let x = self.place(at, sizes);
                let nearest = match self.nearest.as_str() {
                    "floor" => x.floor(),
                    "ceil" => x.ceil(),
                    "round_prefer_ceil" => (x + 0.5).floor(),
                    _ => (x - 0.5).ceil(),
                };
                (nearest as i64).clamp(0, last) as u32
            });
            let picks: Picks = ranged(list.collect());
            return importer.apply("", TensorOperator::Select { axis, picks }, vec![value]);
        }
        let mut indices: Vec<u32> = Vec::new();
        let mut weights: Vec<f32> = Vec::new();
        let mut taps = 1;
        for at in 0..sizes.to {
            let (base, kernel) = self.kernel(self.place(at, sizes), sizes.scale);
            taps = kernel.len();
            let places = (base..).take(taps);
            let outside = |place: i64| place < 0 || place > last;
            let kept: Vec<f64> = places
                .clone()
                .zip(&kernel)
                .map(
                    |(place, &weight)| {
                        if self.exclude_outside && outside(place) { 0.0 } else { weight }
                    },
                )
                .collect();
            let total: f64 = if self.exclude_outside { kept.iter().sum() } else { 1.0 };
            indices.extend(places.map(|place| place.clamp(0, last) as u32));
            weights.extend(kept.iter().map(|weight| (weight / total) as f32));
        }
        importer.spend(indices.len())?;
        let operator = TensorOperator::Resample { axis, taps, indices, weights };
        importer.apply("", operator, vec![value])
    }

    /// Returns the first place and the weights of the elements around `x`.
    fn kernel(&self, x: f32, scale: f32) -> (i64, Vec<f64>) {
        let x = f64::from(x);
        // Downscaling with antialiasing widens the kernel.
        let scale = if self.antialias { f64::from(scale).min(1.0) } else { 1.0 };
        let reach = if self.mode == Mode::Linear { 1.0 } else { 2.0 };
        // The element to the left of `x`, or one before `x` itself.
        let left = x.ceil() - 1.0;
        let start = (-reach / scale).floor() as i64 + 1;
        let count = 2 - 2 * start;
        let a = f64::from(self.cubic);
        let kernel = |distance: f64| {
            let d = distance.abs();
            match self.mode {
                Mode::Linear => (1.0 - d).max(0.0),
                _ if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
                _ if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
                _ => 0.0,
            }
        };
        let first = left as i64 + start;
        let weights: Vec<f64> =
            (first..first + count).map(|place| kernel((place as f64 - x) * scale)).collect();
        let total: f64 = weights.iter().sum();
        (first, weights.into_iter().map(|weight| weight / total).collect())
    }
}

/// Sets elements whose place is outside of the input to the node's extrapolation value.
fn outside(
    importer: &mut Importer,
    node: &Node<'_>,
    value: ValueId,
    inside: &[(usize, Vec<bool>)],
) -> Result<ValueId, String> {
    let fill = importer.constant(vec![node.float("extrapolation_value", 0.0)?].into())?;
    let fill = importer.emit("outside", Operator::Constant { constant: fill }, vec![], vec![1])?;
    let mut value = value;
    for (axis, places) in inside {
        let mut dims = vec![1; importer.dims(value).len()];
        dims[*axis] = places.len();
        let mask = places.iter().map(|&inside| if inside { 1.0 } else { 0.0 }).collect();
        let mask = importer.constant(mask)?;
        let mask = importer.emit("inside", Operator::Constant { constant: mask }, vec![], dims)?;
        value = importer.apply("", TensorOperator::Choose, vec![mask, value, fill])?;
    }
    Ok(value)
}
