#!/usr/bin/env python3
"""Times cuDNN on the same networks and the same GPU: one CUDA graph per network, replayed in a row.

    cudnn.py [--batch 1,16] MODEL.onnx...

Weights come from the ONNX file, and the input is noise. Every convolution runs the algorithm that
cuDNN's own benchmark finds fastest, in NHWC or NCHW, whichever is faster. Prints microseconds per
pass, the smallest of seven rounds of 200 replays, in fp32 (no tensor cores), tf32 and fp16. Needs
PyTorch with CUDA, and `onnx`.
"""

import argparse
import pathlib
import time

import onnx
import torch
import torch.nn.functional as functional
from onnx import helper, numpy_helper


def prepare(model, dtype, layout):
    """Returns the network as a function of its input, with every node of the file as it is."""
    weights = {
        tensor.name: torch.tensor(numpy_helper.to_array(tensor)).cuda()
        for tensor in model.graph.initializer
    }
    steps = [
        (node, {a.name: helper.get_attribute_value(a) for a in node.attribute})
        for node in model.graph.node
    ]
    # Shapes and axes stay on the host.
    lists = {
        name: tensor.tolist() for name, tensor in weights.items() if tensor.dtype == torch.int64
    }
    weights = {
        name: tensor.to(dtype).contiguous(
            memory_format=layout if tensor.dim() == 4 else torch.contiguous_format
        )
        for name, tensor in weights.items()
        if tensor.is_floating_point()
    }

    def run(x):
        values = dict(weights)
        values[model.graph.input[0].name] = x
        for node, attributes in steps:
            operands = [values.get(name) for name in node.input]
            values[node.output[0]] = apply(node, attributes, operands, lists)
        return values[model.graph.output[0].name]

    return run


def apply(node, attributes, operands, lists):
    kind = node.op_type
    x = operands[0]
    if kind == "Conv":
        pads = attributes.get("pads", [0, 0, 0, 0])
        assert pads[:2] == pads[2:], "uneven padding"
        bias = operands[2] if len(operands) > 2 else None
        return functional.conv2d(
            x,
            operands[1],
            bias,
            attributes.get("strides", [1, 1]),
            pads[:2],
            attributes.get("dilations", [1, 1]),
            attributes.get("group", 1),
        )
    if kind == "Relu":
        return torch.relu_(x)
    if kind == "Add":
        return x + operands[1]
    if kind == "MaxPool":
        return functional.max_pool2d(x, attributes["kernel_shape"], attributes.get("strides"))
    if kind == "GlobalAveragePool":
        return x.mean((2, 3), keepdim=True)
    if kind == "ReduceMean":
        axes = attributes.get("axes") or lists[node.input[1]]
        return x.mean(tuple(axes), keepdim=bool(attributes.get("keepdims", 1)))
    if kind == "Flatten":
        return torch.flatten(x, 1)
    if kind == "Reshape":
        return x.reshape(x.shape[0], -1)
    if kind == "Gemm":
        weight = operands[1] if attributes.get("transB") else operands[1].t()
        return functional.linear(x, weight, operands[2] if len(operands) > 2 else None)
    if kind == "Identity":
        return x
    raise SystemExit(f"{node.name}: {kind} is not known here")


def microseconds(model, shape, dtype, tf32, layout):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    run = prepare(model, dtype, layout)
    x = torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=layout)
    with torch.inference_mode():
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(5):
                run(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run(x)
        best = float("inf")
        for _ in range(7):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            for _ in range(200):
                graph.replay()
            torch.cuda.synchronize()
            best = min(best, (time.perf_counter() - begun) / 200)
    return 1e6 * best


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--batch", default="1,16")
    arguments = parser.parse_args()
    print(
        torch.cuda.get_device_name(),
        "PyTorch",
        torch.__version__,
        "cuDNN",
        torch.backends.cudnn.version(),
    )
    print("| network | batch | fp32, us | tf32 | fp16 |\n| --- | --- | --- | --- | --- |")
    for path in arguments.models:
        model = onnx.load(path)
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for batch in map(int, arguments.batch.split(",")):
            shape = [batch] + [dim.dim_value for dim in dims[1:]]
            times = [
                min(
                    microseconds(model, shape, dtype, tf32, layout)
                    for layout in [torch.channels_last, torch.contiguous_format]
                )
                for dtype, tf32 in [
                    (torch.float32, False),
                    (torch.float32, True),
                    (torch.float16, False),
                ]
            ]
            print(
                f"| {path.stem} | {batch} | " + " | ".join(f"{us:.0f}" for us in times) + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
