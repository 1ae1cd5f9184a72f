"""Runs an exported ONNX file in ONNX Runtime: check_onnx.py MODEL.onnx X.npy Y.npy LABELS.npy

X are normalized images, Y the outputs of the exported bundle for them. Prints one JSON object.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime

model, x, y, labels = sys.argv[1], *(np.load(path) for path in sys.argv[2:5])
onnx.checker.check_model(model, full_check=True)
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
found = np.concatenate(
    [session.run(None, {"input": x[i : i + 64]})[0] for i in range(0, len(x), 64)]
)
labels = labels.reshape(-1)
found, y = found.reshape(len(x), -1), y.reshape(len(x), -1)
operators = {}
for node in onnx.load(model).graph.node:
    operators[node.op_type] = operators.get(node.op_type, 0) + 1
print(
    json.dumps(
        {
            "accuracy": float((found.argmax(1) == labels).mean()),
            "expected": float((y.argmax(1) == labels).mean()),
            "agreement": float((found.argmax(1) == y.argmax(1)).mean()),
            "difference": float(np.abs(found - y).mean() / np.abs(y).mean()),
            "operators": operators,
            "properties": session.get_modelmeta().custom_metadata_map,
        }
    )
)
