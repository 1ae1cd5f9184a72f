#!/usr/bin/env python3
"""Runs one task on one engine in a process of its own.

peers.py starts this script and reads the last printed line, which is JSON.

    engines.py probe ENGINE [--int8]                          version and missing Python modules
    engines.py prepare ENGINE --model M --output O [--int8]   writes the network for that engine
    engines.py time ENGINE --model M --threads N --seconds S  median and smallest seconds of a run
    engines.py profile "ONNX Runtime" --model M ...           seconds of its layers, by shape

Only the requested engine is imported, so that each engine may have its own Python.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
import traceback

ORT, OPENVINO, TRACT, LITERT = "ONNX Runtime", "OpenVINO", "tract", "LiteRT"
PACKAGES = {ORT: "onnxruntime", OPENVINO: "openvino", TRACT: "tract", LITERT: "ai-edge-litert"}
# onnx2tf does not declare the packages that it imports.
ONNX2TF = ["onnx2tf", "onnx", "onnx_graphsurgeon", "psutil", "sng4onnx", "tensorflow", "tf_keras"]
MODULES = {
    ORT: ["onnxruntime"],
    OPENVINO: ["openvino"],
    TRACT: ["tract"],
    LITERT: ["ai_edge_litert", *ONNX2TF],
}
INT8_MODULES = {
    ORT: ["onnxruntime", "onnx"],
    OPENVINO: ["openvino", "nncf"],
    LITERT: MODULES[LITERT],
}
# Engines that need a prepared file, and the suffix of that file.
PREPARED = {LITERT: ".tflite"}
INT8_PREPARED = {ORT: ".int8.onnx", OPENVINO: ".int8.xml", LITERT: ".int8.tflite"}
CALIBRATION = 8


def noise(shape, seed=0):
    import numpy

    shape = [side if isinstance(side, int) and side > 0 else 1 for side in shape]
    return numpy.random.default_rng(seed).uniform(-2, 2, shape).astype(numpy.float32)


def timed(run, seconds):
    """Returns the seconds of every run after the warm-up."""
    start = time.perf_counter()
    runs = 0
    while runs < 3 or time.perf_counter() - start < 0.3 * seconds:
        run()
        runs += 1
    times = []
    start = time.perf_counter()
    while len(times) < 10 or time.perf_counter() - start < seconds:
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return times


def ort_session(model, threads, profile=False):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_profiling = profile
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    first = session.get_inputs()[0]
    value = onnxruntime.OrtValue.ortvalue_from_numpy(noise(first.shape))
    binding.bind_ortvalue_input(first.name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return session, binding


def time_ort(args):
    session, binding = ort_session(args.model, args.threads)
    return timed(lambda: session.run_with_iobinding(binding), args.seconds)


def time_openvino(args):
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": args.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(core.read_model(args.model), "CPU", settings)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(noise(openvino_shape(compiled))))
    return timed(request.infer, args.seconds)


def openvino_shape(model):
    return [d.get_length() if d.is_static else 1 for d in model.inputs[0].get_partial_shape()]


def time_tract(args):
    import tract

    model = tract.onnx().load(args.model)
    *sides, kind = str(model.input_fact(0)).split(",")
    shape = [int(side) if side.isdigit() else 1 for side in sides]
    model.set_input_fact(0, ",".join(map(str, [*shape, kind])))
    state = model.into_model().into_runnable().spawn_state()
    image = tract.Tensor.from_numpy(noise(shape))
    return timed(lambda: state.run([image]), args.seconds)


def time_litert(args):
    from ai_edge_litert.interpreter import Interpreter

    # This interpreter uses XNNPACK by default.
    interpreter = Interpreter(args.model, num_threads=args.threads)
    interpreter.allocate_tensors()
    first = interpreter.get_input_details()[0]
    interpreter.set_tensor(first["index"], noise(first["shape"].tolist()))
    return timed(interpreter.invoke, args.seconds)


def quantize_ort(args):
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    prepared = args.output + ".prepared.onnx"
    shape_inference.quant_pre_process(args.model, prepared, skip_symbolic_shape=True)
    value = onnx.load(prepared).graph.input[0]
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]

    class Reader(quantization.CalibrationDataReader):
        left = CALIBRATION

        def get_next(self):
            self.left -= 1
            return {value.name: noise(shape, self.left)} if self.left >= 0 else None

    quantization.quantize_static(
        prepared,
        args.output,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        # Without 4-byte dot products, sums of two products saturate at 16 bits.
        reduce_range=" avx512_vnni" not in cpu_flags() and " avx_vnni" not in cpu_flags(),
    )


def cpu_flags():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return next((line for line in text.splitlines() if line.startswith("flags")), "")


def quantize_openvino(args):
    import nncf
    import openvino

    model = openvino.Core().read_model(args.model)
    dataset = nncf.Dataset([noise(openvino_shape(model), seed) for seed in range(CALIBRATION)])
    quantized = nncf.quantize(model, dataset, subset_size=CALIBRATION)
    openvino.save_model(quantized, args.output, compress_to_fp16=False)


def prepare_litert(args):
    with tempfile.TemporaryDirectory() as folder:
        shape = onnx_to_tensorflow(args.model, pathlib.Path(folder))
        import tensorflow

        converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder)
        if args.int8:
            converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
            # Fails if an operator has no integer form, instead of keeping floating point.
            converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: (
                [noise(shape, seed)] for seed in range(CALIBRATION)
            )
        pathlib.Path(args.output).write_bytes(converter.convert())


def onnx_to_tensorflow(model, folder):
    """Writes a TensorFlow saved model in NHWC to the folder; returns its input shape."""
    import numpy
    import onnx

    # onnx2tf renames nodes in the file that it reads, so it gets a copy.
    onnx.save(onnx.load(model), folder / "network.onnx")
    # onnx2tf downloads these images for three input channels unless the file exists.
    numpy.save(
        folder / "calibration_image_sample_data_20x128x128x3_float32.npy", noise([20, 128, 128, 3])
    )
    here = os.getcwd()
    os.chdir(folder)
    import onnx2tf

    try:
        network = onnx2tf.convert(
            input_onnx_file_path="network.onnx",
            output_folder_path=str(folder),
            batch_size=1,
            not_use_onnxsim=True,
            # Strict mode would need ONNX Runtime in this Python, to compare every layer.
            disable_strict_mode=True,
            output_signaturedefs=True,
            verbosity="error",
        )
    except SystemExit:
        raise RuntimeError("onnx2tf cannot convert it") from None
    finally:
        os.chdir(here)
    return list(network.inputs[0].shape)


def profile_ort(args):
    """Returns ONNX Runtime's seconds by layer shape, and those of all other operators."""
    os.chdir(tempfile.mkdtemp())
    session, binding = ort_session(args.model, args.threads, profile=True)
    start, runs = time.perf_counter(), 0
    while runs < 20 or time.perf_counter() - start < args.seconds:
        session.run_with_iobinding(binding)
        runs += 1
    events = json.loads(pathlib.Path(session.end_profiling()).read_text())
    seconds = {}
    for event in events:
        details = event.get("args", {})
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        seconds.setdefault((event["name"], details.get("op_name", "")), []).append(
            (event["dur"] * 1e-6, details)
        )
    groups = {}
    for (_, op), seen in seconds.items():
        time_of_node = statistics.median(duration for duration, _ in seen[len(seen) // 4 :])
        shapes = [
            list(next(iter(s.values()))) for s in seen[-1][1].get("input_type_shape", []) if s
        ]
        outputs = [
            list(next(iter(s.values()))) for s in seen[-1][1].get("output_type_shape", []) if s
        ]
        if "Conv" in op and len(shapes) > 1 and len(shapes[1]) == 4:
            key = layer_key(shapes[1], outputs[0][2:])
        elif op in ("Gemm", "FusedGemm", "MatMul"):
            key = "dense"
        else:
            key = f"other: {op}"
        groups[key] = groups.get(key, 0.0) + time_of_node
    return groups


def layer_key(weights, pixels):
    out, group_in, height, width = weights
    kind = "depthwise " if group_in == 1 and height > 1 else ""
    return (
        f"{kind}{height}x{width} {group_in if not kind else out}-{out} to {pixels[0]}x{pixels[1]}"
    )


TIME = {ORT: time_ort, OPENVINO: time_openvino, TRACT: time_tract, LITERT: time_litert}
QUANTIZE = {ORT: quantize_ort, OPENVINO: quantize_openvino, LITERT: prepare_litert}


def probe(args):
    modules = (INT8_MODULES if args.int8 else MODULES)[args.engine]
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return {
        "missing": missing,
        "version": None if missing else importlib.metadata.version(PACKAGES[args.engine]),
    }


def prepare(args):
    (QUANTIZE[args.engine] if args.int8 else prepare_litert)(args)
    return {}


def measure(args):
    times = TIME[args.engine](args)
    return {"median": statistics.median(times), "least": min(times), "runs": len(times)}


def main():
    tasks = {"probe": probe, "prepare": prepare, "time": measure, "profile": profile_ort}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=tasks)
    parser.add_argument("engine", choices=TIME)
    parser.add_argument("--model")
    parser.add_argument("--output")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    try:
        print(json.dumps(tasks[args.task](args)))
    except Exception as error:
        traceback.print_exc()
        # peers.py shows the last line, and some messages begin or end with a traceback.
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


if __name__ == "__main__":
    main()
