#!/usr/bin/env python3
"""Trains two small networks with squeeze-and-excitation on CIFAR-10 and writes them as ONNX.

Batch normalization is folded. The networks are mobilenetv3.onnx (MobileNetV3-Small of
arXiv:1905.02244, table 2, with stride 1 in the stem and the first block for images of 32x32) and
se_resnet20.onnx (ResNet-20 with the gates of arXiv:1709.01507, reduction 4).

    squeeze_excite.py --data cifar10 --out FOLDER [--epochs 60]

`cifar10` is a folder with train/<class>/*.jpg and test/<class>/*.jpg. Needs PyTorch, torchvision,
Pillow and onnx, and some minutes on a GPU. Inputs are normalized by mean 125.3,123.0,113.9 and
deviation 63.0,62.1,66.7 on the 0-255 scale.
"""

import argparse
import pathlib
import time

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


def conv(inputs, outputs, kernel=1, stride=1, groups=1, activation=None):
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class Gate(nn.Module):
    """Squeeze and excitation: scales channels by a function of their means."""

    def __init__(self, channels, reduction=4):
        super().__init__()
        narrow = max(8, (channels // reduction + 4) // 8 * 8)
        self.squeeze = nn.Conv2d(channels, narrow, 1)
        self.excite = nn.Conv2d(narrow, channels, 1)

    def forward(self, x):
        means = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.excite(F.relu(self.squeeze(means))))


class Bottleneck(nn.Module):
    """Pointwise, depthwise, gate, pointwise (MobileNetV3)."""

    def __init__(self, inputs, kernel, wide, outputs, gated, activation, stride):
        super().__init__()
        self.body = nn.Sequential(
            *([conv(inputs, wide, activation=activation)] if wide != inputs else []),
            conv(wide, wide, kernel, stride, wide, activation),
            *([Gate(wide)] if gated else []),
            conv(wide, outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class Basic(nn.Module):
    """Two 3x3 convolutions, a gate, and a shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            conv(inputs, outputs, 3, stride, activation=nn.ReLU),
            conv(outputs, outputs, 3),
            Gate(outputs),
        )
        self.shortcut = (
            nn.Identity() if inputs == outputs and stride == 1 else conv(inputs, outputs, 1, stride)
        )

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x))


def mobilenetv3():
    r, h = nn.ReLU, nn.Hardswish
    return nn.Sequential(
        conv(3, 16, 3, activation=h),
        Bottleneck(16, 3, 16, 16, True, r, 1),
        Bottleneck(16, 3, 72, 24, False, r, 2),
        Bottleneck(24, 3, 88, 24, False, r, 1),
        Bottleneck(24, 5, 96, 40, True, h, 2),
        Bottleneck(40, 5, 240, 40, True, h, 1),
        Bottleneck(40, 5, 240, 40, True, h, 1),
        Bottleneck(40, 5, 120, 48, True, h, 1),
        Bottleneck(48, 5, 144, 48, True, h, 1),
        Bottleneck(48, 5, 288, 96, True, h, 2),
        Bottleneck(96, 5, 576, 96, True, h, 1),
        Bottleneck(96, 5, 576, 96, True, h, 1),
        conv(96, 576, activation=h),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(576, 1024),
        nn.Hardswish(),
        nn.Linear(1024, 10),
    )


def se_resnet20():
    blocks = [
        Basic(i, o, s)
        for i, o, s in [
            (16, 16, 1),
            (16, 16, 1),
            (16, 16, 1),
            (16, 32, 2),
            (32, 32, 1),
            (32, 32, 1),
            (32, 64, 2),
            (64, 64, 1),
            (64, 64, 1),
        ]
    ]
    return nn.Sequential(
        conv(3, 16, 3, activation=nn.ReLU),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def load(folder, device):
    pixels, labels = [], []
    for label, kind in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in sorted(kind.glob("*.jpg")):
            pixels.append(np.asarray(Image.open(path).convert("RGB")))
            labels.append(label)
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous().to(device)
    return images, torch.tensor(labels, device=device)


def normalized(images):
    mean, std = (torch.tensor(x, device=images.device).reshape(1, 3, 1, 1) for x in (MEAN, STD))
    return (images.float() - mean) / std


def augmented(images):
    """Shifts every image by up to four pixels and mirrors some, each independently."""
    count, device = len(images), images.device
    padded = F.pad(normalized(images), (4, 4, 4, 4))
    rows = torch.arange(32, device=device) + torch.randint(0, 9, (count, 1), device=device)
    columns = torch.arange(32, device=device) + torch.randint(0, 9, (count, 1), device=device)
    columns = torch.where(torch.rand(count, 1, device=device) < 0.5, columns.flip(1), columns)
    image = torch.arange(count, device=device).reshape(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[image, rows.unsqueeze(2), columns.unsqueeze(1)].permute(
        0, 3, 1, 2
    )


@torch.no_grad()
def accuracy(model, images, labels):
    model.eval()
    parts = range(0, len(images), 2000)
    hits = sum(
        (model(normalized(images[i : i + 2000])).argmax(1) == labels[i : i + 2000]).sum().item()
        for i in parts
    )
    return hits / len(images)


def train(model, images, labels, test, epochs, batch=256, rate=0.2):
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    steps = len(images) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps * epochs, pct_start=0.15
    )
    for epoch in range(epochs):
        start = time.time()
        model.train()
        order = torch.randperm(len(images), device=images.device)
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            with torch.autocast(images.device.type, torch.bfloat16):
                logits = model(augmented(images[chosen]))
            loss = F.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9 or epoch == epochs - 1:
            found = accuracy(model, *test)
            print(
                f"epoch {epoch + 1}: test {found:.4f}, {time.time() - start:.1f} s an epoch",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    training, test = load(arguments.data / "train", device), load(arguments.data / "test", device)
    for build in (se_resnet20, mobilenetv3):
        torch.manual_seed(0)
        model = build().to(device)
        print(
            f"{build.__name__}: {sum(p.numel() for p in model.parameters())} parameters", flush=True
        )
        train(model, *training, test, arguments.epochs)
        torch.backends.cudnn.allow_tf32 = False
        print(f"{build.__name__}: {accuracy(model, *test):.4f} of the test images", flush=True)
        model.cpu().eval()
        torch.onnx.export(
            model,
            torch.zeros(1, 3, 32, 32),
            arguments.out / f"{build.__name__}.onnx",
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


if __name__ == "__main__":
    main()
