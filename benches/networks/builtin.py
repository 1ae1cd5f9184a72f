"""Trains the built-in network on the built-in images and writes builtin.onnx.

    cargo run --release --example builtin_images -- training 168000 train.bin
    cargo run --release --example builtin_images -- report 20000 test.bin
    python3 benches/networks/builtin.py --train train.bin --test test.bin \\
        --out src/model/builtin/builtin.onnx

Needs PyTorch, onnx and onnxruntime. With a GPU the training takes minutes. The image files have
CIFAR-10's binary records: a label byte, then 32x32 red, green and blue bytes. The network mixes
the layers that compression meets in practice: plain residual blocks, inverted residuals with
depthwise convolutions, pointwise convolutions, a projection shortcut and a dense layer. The script
also prints the accuracy after plain rounding and magnitude pruning, so that images can be kept hard
enough for compression to matter.
"""

import argparse
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = 128.0, 64.0


def conv(inputs, outputs, kernel=3, stride=1, groups=1, relu=True):
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.body = nn.Sequential(
            conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3, relu=False)
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv(inputs, outputs, 1, stride, relu=False)

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x))


class Inverted(nn.Module):
    """Pointwise, depthwise, pointwise; the last one linear (MobileNetV2)."""

    def __init__(self, inputs, outputs, stride=1, expand=4):
        super().__init__()
        wide = inputs * expand
        self.body = nn.Sequential(
            conv(inputs, wide, 1),
            conv(wide, wide, 3, stride, groups=wide),
            conv(wide, outputs, 1, relu=False),
        )
        self.residual = inputs == outputs and stride == 1

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


def network():
    return nn.Sequential(
        conv(3, 16),
        Residual(16, 16),
        Residual(16, 16),
        Inverted(16, 32, stride=2),
        Residual(32, 32),
        Inverted(32, 32),
        Residual(32, 64, stride=2),
        Inverted(64, 64),
        Residual(64, 64),
        Inverted(64, 64),
        conv(64, 128, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def load(path, device):
    records = np.fromfile(path, np.uint8).reshape(-1, 3073)
    pixels = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()).to(device)
    return pixels, torch.from_numpy(records[:, 0].astype(np.int64)).to(device)


def normalized(pixels):
    return (pixels.float() - MEAN) / STD


@torch.no_grad()
def accuracy(model, pixels, labels):
    model.eval()
    hits = 0
    for start in range(0, len(pixels), 2000):
        part = slice(start, start + 2000)
        hits += (model(normalized(pixels[part])).argmax(1) == labels[part]).sum().item()
    return hits / len(pixels)


def train(model, pixels, labels, test, epochs, batch, rate):
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    steps = len(pixels) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps * epochs, pct_start=0.2
    )
    for epoch in range(epochs):
        start = time.time()
        model.train()
        order = torch.randperm(len(pixels), device=pixels.device)
        total = 0.0
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            # Classes do not change under mirroring: it doubles the images.
            images = normalized(pixels[chosen])
            images = images.flip(3) if step % 2 else images
            with torch.autocast(pixels.device.type, torch.bfloat16):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 50 == 0:
                total += loss.item() / ((steps + 49) // 50)
        if epoch % 5 == 4 or epoch == epochs - 1:
            found = accuracy(model, *test)
            seconds = time.time() - start
            figures = f"loss {total:.3f}, test {found:.4f}, {seconds:.1f} s"
            print(f"epoch {epoch + 1}: {figures}", flush=True)


def changed(model, change):
    """Returns a copy of the model with `change` applied to each weight tensor."""
    copy = network().to(next(model.parameters()).device)
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in copy.parameters():
            if parameter.ndim > 1:
                parameter.copy_(change(parameter))
    return copy


def rounded(bits):
    def change(weights):
        limit = 2 ** (bits - 1) - 1
        scale = weights.flatten(1).abs().amax(1).clamp_min(1e-12) / limit
        scale = scale.reshape(-1, *[1] * (weights.ndim - 1))
        return (weights / scale).round().clamp(-limit, limit) * scale

    return change


def pruned(model, fraction):
    every = torch.cat([p.detach().abs().flatten() for p in model.parameters() if p.ndim > 1])
    threshold = every.kthvalue(max(1, int(fraction * len(every)))).values
    zeros = torch.zeros_like
    return lambda weights: torch.where(weights.abs() > threshold, weights, zeros(weights))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    test = load(arguments.test, device)
    model = network().to(device)
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    images = load(arguments.train, device)
    train(model, *images, test, arguments.epochs, arguments.batch, arguments.rate)

    print(f"float: {accuracy(model, *test):.4f}")
    for bits in (8, 6, 5, 4, 3, 2):
        print(f"weights of {bits} bits: {accuracy(changed(model, rounded(bits)), *test):.4f}")
    for fraction in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9):
        found = accuracy(changed(model, pruned(model, fraction)), *test)
        print(f"{fraction:.0%} of weights zero: {found:.4f}")

    model.cpu().eval()
    torch.onnx.export(
        model,
        torch.zeros(1, 3, 32, 32),
        arguments.out,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    check(arguments.out, *(tensor.cpu() for tensor in test))


def check(path, pixels, labels):
    """Checks that the exported file has the trained accuracy in another runtime."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    hits = 0
    for start in range(0, len(pixels), 1000):
        part = slice(start, start + 1000)
        logits = session.run(None, {"input": normalized(pixels[part]).numpy()})[0]
        hits += (logits.argmax(1) == labels[part].numpy()).sum()
    print(f"exported, in ONNX Runtime: {hits / len(pixels):.4f}")


if __name__ == "__main__":
    main()
