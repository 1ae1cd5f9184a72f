#!/usr/bin/env python3
"""Writes resnet50.onnx, mobilenet_v2.onnx and vgg16.onnx for images of 3x224x224 to a folder.

The shapes are the published ones, with batch normalization folded. The weights are random, so the
networks are for timing only.

    networks224.py FOLDER

ResNet-50 has its stride in the 3x3 convolution (as in torchvision). The weights are drawn so that
the size of the activations stays constant.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Network:
    """A graph under construction, whose last value has `channels` channels."""

    def __init__(self, name):
        self.name, self.nodes, self.weights = name, [], []
        self.random = np.random.default_rng(0)
        self.last, self.channels = "input", 3

    def add(self, operator, inputs, **attributes):
        output = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                operator, inputs, [output], name=f"{operator}{len(self.nodes)}", **attributes
            )
        )
        self.last = output
        return output

    def weight(self, shape, fan_in, gain=2.0):
        name = f"w{len(self.weights)}"
        values = self.random.standard_normal(shape, dtype=np.float32) * np.float32(
            (gain / fan_in) ** 0.5
        )
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, channels, size, stride=1, groups=1, activation=None, gain=2.0):
        fan_in = self.channels // groups * size * size
        weight = self.weight((channels, self.channels // groups, size, size), fan_in, gain)
        bias = self.weight((channels,), 100.0)
        pads = [(size - 1) // 2] * 4
        attributes = dict(
            kernel_shape=[size, size], strides=[stride, stride], pads=pads, group=groups
        )
        self.add("Conv", [self.last, weight, bias], **attributes)
        self.channels = channels
        if activation == "relu":
            self.add("Relu", [self.last])
        elif activation == "relu6":
            self.add("Clip", [self.last, "zero", "six"])

    def dense(self, features, inputs, activation=None):
        weight, bias = self.weight((features, inputs), inputs), self.weight((features,), 100.0)
        self.add("Gemm", [self.last, weight, bias], transB=1)
        self.channels = features
        if activation:
            self.add("Relu", [self.last])

    def write(self, folder):
        for name, value in ("zero", 0.0), ("six", 6.0):
            if any(name in node.input for node in self.nodes):
                self.weights.append(numpy_helper.from_array(np.float32(value), name))
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 224, 224])],
            [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, [1, self.channels])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, folder / f"{self.name}.onnx")


def resnet50():
    net = Network("resnet50")
    net.conv(64, 7, 2, activation="relu")
    net.add("MaxPool", [net.last], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for width, blocks, first in (64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2):
        for block in range(blocks):
            stride = first if block == 0 else 1
            before, channels = net.last, net.channels
            if block == 0:
                net.conv(4 * width, 1, stride, gain=1.0)
                shortcut, net.last, net.channels = net.last, before, channels
            else:
                shortcut = before
            net.conv(width, 1, activation="relu")
            net.conv(width, 3, stride, activation="relu")
            net.conv(4 * width, 1, gain=0.1)
            net.add("Add", [net.last, shortcut])
            net.add("Relu", [net.last])
    net.add("GlobalAveragePool", [net.last])
    net.add("Flatten", [net.last])
    net.dense(1000, net.channels)
    return net


def mobilenet_v2():
    net = Network("mobilenet_v2")
    net.conv(32, 3, 2, activation="relu6")
    settings = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for expand, channels, blocks, first in settings:
        for block in range(blocks):
            stride = first if block == 0 else 1
            before, inputs = net.last, net.channels
            if expand > 1:
                net.conv(expand * inputs, 1, activation="relu6")
            net.conv(net.channels, 3, stride, groups=net.channels, activation="relu6")
            net.conv(channels, 1, gain=1.0)
            if stride == 1 and inputs == channels:
                net.add("Add", [net.last, before])
    net.conv(1280, 1, activation="relu6")
    net.add("GlobalAveragePool", [net.last])
    net.add("Flatten", [net.last])
    net.dense(1000, net.channels)
    return net


def vgg16():
    net = Network("vgg16")
    for width, layers in (64, 2), (128, 2), (256, 3), (512, 3), (512, 3):
        for _ in range(layers):
            net.conv(width, 3, activation="relu")
        net.add("MaxPool", [net.last], kernel_shape=[2, 2], strides=[2, 2])
    net.add("Flatten", [net.last])
    net.dense(4096, 512 * 7 * 7, activation="relu")
    net.dense(4096, 4096, activation="relu")
    net.dense(1000, 4096)
    return net


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for network in resnet50(), mobilenet_v2(), vgg16():
        network.write(target)
