//! Distinct layers of four common CIFAR-10 networks, and some with larger windows.

use paretune_kernels::operator::{ConvProblem, Window};

/// Layers as `(networks, in, out, groups, height and width, kernel, stride)`
const LAYERS: [(&str, usize, usize, usize, usize, usize, usize); 51] = [
    ("resnet20", 3, 16, 1, 32, 3, 1),
    ("resnet20", 16, 16, 1, 32, 3, 1),
    ("resnet20", 16, 32, 1, 32, 3, 2),
    ("resnet20", 32, 32, 1, 16, 3, 1),
    ("resnet20", 16, 32, 1, 32, 1, 2),
    ("resnet20", 32, 64, 1, 16, 3, 2),
    ("resnet20", 64, 64, 1, 8, 3, 1),
    ("resnet20", 32, 64, 1, 16, 1, 2),
    ("resnet20", 64, 10, 1, 1, 1, 1),
    ("mobilenet", 3, 32, 1, 32, 3, 1),
    ("mobilenet", 32, 32, 32, 32, 3, 1),
    ("mobilenet", 32, 64, 1, 32, 1, 1),
    ("mobilenet", 64, 64, 64, 32, 3, 2),
    ("mobilenet", 64, 128, 1, 16, 1, 1),
    ("mobilenet", 128, 128, 128, 16, 3, 1),
    ("mobilenet", 128, 128, 1, 16, 1, 1),
    ("mobilenet", 128, 128, 128, 16, 3, 2),
    ("mobilenet", 128, 256, 1, 8, 1, 1),
    ("mobilenet", 256, 256, 256, 8, 3, 1),
    ("mobilenet", 256, 256, 1, 8, 1, 1),
    ("mobilenet", 256, 256, 256, 8, 3, 2),
    ("mobilenet", 256, 512, 1, 4, 1, 1),
    ("mobilenet", 512, 512, 512, 4, 3, 1),
    ("mobilenet", 512, 512, 1, 4, 1, 1),
    ("mobilenet", 512, 512, 512, 4, 3, 2),
    ("mobilenet", 512, 1024, 1, 2, 1, 1),
    ("mobilenet", 1024, 1024, 1024, 2, 3, 1),
    ("mobilenet", 1024, 1024, 1, 2, 1, 1),
    ("mobilenet", 1024, 10, 1, 1, 1, 1),
    ("resnet18 vgg16", 3, 64, 1, 32, 3, 1),
    ("resnet18 vgg16", 64, 64, 1, 32, 3, 1),
    ("resnet18", 64, 128, 1, 32, 3, 2),
    ("resnet18 vgg16", 128, 128, 1, 16, 3, 1),
    ("resnet18", 64, 128, 1, 32, 1, 2),
    ("resnet18", 128, 256, 1, 16, 3, 2),
    ("resnet18 vgg16", 256, 256, 1, 8, 3, 1),
    ("resnet18", 128, 256, 1, 16, 1, 2),
    ("resnet18", 256, 512, 1, 8, 3, 2),
    ("resnet18 vgg16", 512, 512, 1, 4, 3, 1),
    ("resnet18", 256, 512, 1, 8, 1, 2),
    ("resnet18 vgg16", 512, 10, 1, 1, 1, 1),
    ("vgg16", 64, 128, 1, 16, 3, 1),
    ("vgg16", 128, 256, 1, 8, 3, 1),
    ("vgg16", 256, 512, 1, 4, 3, 1),
    ("vgg16", 512, 512, 1, 2, 3, 1),
    ("vgg16", 512, 512, 1, 1, 1, 1),
    ("large", 32, 32, 1, 16, 5, 1),
    ("large", 64, 64, 1, 32, 5, 1),
    ("large", 128, 128, 1, 16, 5, 1),
    ("large", 64, 64, 1, 32, 7, 1),
    ("large", 128, 128, 1, 16, 7, 1),
];

/// Returns every layer with the names of its networks; `large` stands for larger windows.
pub fn all() -> impl Iterator<Item = (&'static str, ConvProblem)> {
    LAYERS.into_iter().map(|(networks, in_channels, out_channels, groups, size, kernel, stride)| {
        let window = Window {
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1, 1],
            padding: [kernel / 2; 4],
        };
        (
            networks,
            ConvProblem { batch: 1, in_channels, out_channels, groups, input: [size; 2], window },
        )
    })
}

/// Returns a name made of channels, kernel, output size and stride.
pub fn name(problem: &ConvProblem) -> String {
    let ConvProblem { in_channels, out_channels, window, .. } = problem;
    let size = problem.output().map_or(0, |[height, _]| height);
    let kind = if problem.is_depthwise() { "dw " } else { "" };
    let stride =
        if window.stride[0] > 1 { format!(" /{}", window.stride[0]) } else { String::new() };
    format!("{kind}{in_channels}-{out_channels} {0}x{0} at {size}x{size}{stride}", window.kernel[0])
}
