"""Counts the official ONNX node tests that the program computes, and how it refuses the others.

Usage: PARETUNE=target/release/paretune python networks_supported.py [--only TEXT]
Needs: numpy, onnx

Takes the node tests of the installed `onnx` package that have one 4-D floating-point input. Their
other inputs become initializers. A test passes if the first output is within 1e-3 of its largest
number.
"""

import argparse
import collections
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

PROGRAM = os.environ.get("PARETUNE", "paretune")
# Not found in networks for images: counted, and left out of the first figure.
ELSEWHERE = {
    "Attention", "FlexAttention", "RotaryEmbedding", "DFT", "RoiAlign", "DeformConv",
    "TensorScatter", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "MaxUnpool", "Sin",
    "Cos",
}


def load(case):
    """Returns the model with one input, the input, and the expected first output."""
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    inputs, outputs = case.data_sets[0]
    # Sequences, optional values and formats that NumPy does not have are left out.
    if not all(isinstance(x, np.ndarray) for x in [*inputs, outputs[0]]):
        return None
    want = outputs[0]
    float4d = [i for i, x in enumerate(inputs) if x.ndim == 4 and x.dtype in (np.float32, np.float64)]
    if len(float4d) == 0:
        return None
    main = float4d[0]
    infos = list(model.graph.input)
    for i, (info, x) in enumerate(zip(infos, inputs)):
        if i != main:
            model.graph.initializer.append(numpy_helper.from_array(x, info.name))
    del model.graph.input[:]
    model.graph.input.append(infos[main])
    return model, inputs[main], want


def ask(model, x, folder):
    onnx.save(model, folder / "model.onnx")
    np.save(folder / "x.npy", np.ascontiguousarray(x.astype(np.float32)))
    call = [PROGRAM, "run", "model.onnx", "--input", "x.npy", "--output", "y.npy"]
    environment = dict(os.environ, PARETUNE_HOME=str(folder / "home"), NO_COLOR="1")
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return None, lines[-1].removeprefix("error: ")
    return np.load(folder / "y.npy"), ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    counts, reasons = collections.Counter(), collections.Counter()
    cases = sorted(collect_testcases(None), key=lambda case: case.name)
    for case in cases:
        found = load(case) if args.only in case.name else None
        if found is None:
            continue
        model, x, want = found
        with tempfile.TemporaryDirectory() as folder:
            got, why = ask(model, x, pathlib.Path(folder))
        if got is None:
            result = "refused"
            reasons[re.sub(r"`[^`]*`", "..", why)[:110]] += 1
        else:
            want = want.astype(np.float64).ravel()
            largest = max(np.abs(want[np.isfinite(want)]).max(initial=0), 1e-30)
            same = got.size == want.size and np.allclose(
                got.astype(np.float64).ravel(), want, rtol=0, atol=1e-3 * largest, equal_nan=True
            )
            result = "passed" if same else "wrong"
        operators = {node.op_type for node in model.graph.node}
        image = not operators & ELSEWHERE and "_expanded" not in case.name
        for group in ["all"] + ["image"] * image:
            counts[group, result] += 1
            counts[group] += 1
        if result != "passed":
            print(f"{result:8} {case.name:50} {why}")
    for why, count in reasons.most_common():
        print(f"{count:4} {why}")
    for group in ("image", "all"):
        print(group, f"passed {counts[group, 'passed']} of {counts[group]},", *(
            f"{result} {counts[group, result]}" for result in ("refused", "wrong")
        ))
    return 1 if counts["all", "wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
