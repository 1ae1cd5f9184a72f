#!/usr/bin/env python3
"""Times paretune and other CPU engines on the same networks, interleaved, and prints a Markdown table.

Every measurement is a fresh process. In each round all engines take their turn on a network, in an order drawn anew; of a
round counts the plain median of all runs (for paretune too: nothing is left out or scaled here), of several rounds their
median. One image at a time. Ratios are peer / ours: above 1 paretune is faster.

    peers.py --paretune target/release/paretune resnet20.onnx mobilenet.onnx
    peers.py --tune 60 ...                      tunes every network first; else what the result store knows is used
    peers.py --layers                           single layers: 3x3 at 64 to 512 channels, 1x1, depthwise of MobileNet
    peers.py --int8 --bundle resnet20=FOLDER .. 8-bit bundles against statically quantized peers
    peers.py --profile ...                      where ONNX Runtime's time goes, layer by layer, beside ours

paretune pins its threads to cores by itself. Peers may use the first N cores only, with N threads that do not sleep between
layers. Needs `pip install onnx onnxruntime`, and `openvino` and `nncf` where those are to be compared; what is not installed
is left out, and said so. Calibration of peers is on noise: times do not depend on it, accuracies would.
"""

import argparse
import importlib.util
import json
import math
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

# Batch 1, as published for CIFAR networks (3x3) and MobileNet at 224x224 (1x1 and depthwise): name, channels in, out, kernel,
# stride, groups, pixels a side.
LAYERS = [
    ("3x3 64", 64, 64, 3, 1, 1, 32),
    ("3x3 128", 128, 128, 3, 1, 1, 16),
    ("3x3 256", 256, 256, 3, 1, 1, 8),
    ("3x3 512", 512, 512, 3, 1, 1, 4),
    ("3x3 64 at 56", 64, 64, 3, 1, 1, 56),
    ("3x3 128 at 28", 128, 128, 3, 1, 1, 28),
    ("3x3 256 at 14", 256, 256, 3, 1, 1, 14),
    ("3x3 512 at 7", 512, 512, 3, 1, 1, 7),
    ("1x1 32-64 at 112", 32, 64, 1, 1, 1, 112),
    ("1x1 128-128 at 56", 128, 128, 1, 1, 1, 56),
    ("1x1 256-256 at 28", 256, 256, 1, 1, 1, 28),
    ("1x1 512-512 at 14", 512, 512, 1, 1, 1, 14),
    ("1x1 1024-1024 at 7", 1024, 1024, 1, 1, 1, 7),
    ("depthwise 32 at 112", 32, 32, 3, 1, 32, 112),
    ("depthwise 64 at 112 /2", 64, 64, 3, 2, 64, 112),
    ("depthwise 128 at 56", 128, 128, 3, 1, 128, 56),
    ("depthwise 128 at 56 /2", 128, 128, 3, 2, 128, 56),
    ("depthwise 256 at 28", 256, 256, 3, 1, 256, 28),
    ("depthwise 256 at 28 /2", 256, 256, 3, 2, 256, 28),
    ("depthwise 512 at 14", 512, 512, 3, 1, 512, 14),
    ("depthwise 512 at 14 /2", 512, 512, 3, 2, 512, 14),
    ("depthwise 1024 at 7", 1024, 1024, 3, 1, 1024, 7),
]
OURS, ORT, OPENVINO = "paretune", "ONNX Runtime", "OpenVINO"
MODULES = {ORT: ["onnxruntime"], OPENVINO: ["openvino"]}
INT8_MODULES = {ORT: ["onnxruntime"], OPENVINO: ["openvino", "nncf"]}
CALIBRATION = 8


# What runs in a process of its own: one engine, one network.


def noise(shape, seed=0):
    import numpy

    shape = [side if isinstance(side, int) and side > 0 else 1 for side in shape]
    return numpy.random.default_rng(seed).uniform(-2, 2, shape).astype(numpy.float32)


def timed(run, seconds):
    """Seconds of every run after warm-up."""
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


def child_ort(args):
    session, binding = ort_session(args.model, args.threads)
    return timed(lambda: session.run_with_iobinding(binding), args.seconds)


def child_openvino(args):
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
    shape = [d.get_length() if d.is_static else 1 for d in compiled.inputs[0].get_partial_shape()]
    request.set_input_tensor(openvino.Tensor(noise(shape)))
    return timed(request.infer, args.seconds)


def child_profile(args):
    """Seconds of ONNX Runtime's convolutions and products, by the shapes of weights and outputs; and of everything else."""
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
        seconds.setdefault((event["name"], details.get("op_name", "")), []).append((event["dur"] * 1e-6, details))
    groups = {}
    for (_, op), seen in seconds.items():
        time_of_node = statistics.median(duration for duration, _ in seen[len(seen) // 4 :])
        shapes = [list(next(iter(s.values()))) for s in seen[-1][1].get("input_type_shape", []) if s]
        outputs = [list(next(iter(s.values()))) for s in seen[-1][1].get("output_type_shape", []) if s]
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
    return f"{kind}{height}x{width} {group_in if not kind else out}-{out} to {pixels[0]}x{pixels[1]}"


def child_quantize(args):
    """Writes the statically quantized network of one engine."""
    if args.engine == ORT:
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
            # Without dot products of four bytes, sums of two products must fit 16 bits, or numbers are wrong.
            reduce_range=" avx512_vnni" not in cpu_flags() and " avx_vnni" not in cpu_flags(),
        )
    else:
        import nncf
        import openvino

        model = openvino.Core().read_model(args.model)
        shape = [d.get_length() if d.is_static else 1 for d in model.inputs[0].get_partial_shape()]
        dataset = nncf.Dataset([noise(shape, seed) for seed in range(CALIBRATION)])
        quantized = nncf.quantize(model, dataset, subset_size=CALIBRATION)
        openvino.save_model(quantized, args.output, compress_to_fp16=False)


def cpu_flags():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return next((line for line in text.splitlines() if line.startswith("flags")), "")


def child(args):
    if args.child == "quantize":
        child_quantize(args)
        result = {}
    elif args.child == "profile":
        result = child_profile(args)
    else:
        times = child_ort(args) if args.engine == ORT else child_openvino(args)
        result = {"median": statistics.median(times), "least": min(times), "runs": len(times)}
    print(json.dumps(result))


# What starts them.


def ask_child(what, engine, model, threads, seconds, output=""):
    cores = sorted(os.sched_getaffinity(0))[:threads]
    command = [sys.executable, __file__, "--child", what, "--engine", engine, "--model", str(model)]
    command += ["--threads", str(threads), "--seconds", str(seconds), "--output", str(output)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores) if what == "time" else None,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"{engine} on {model}: {lines[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def paretune(args, *arguments):
    command = [args.paretune, *map(str, arguments)] + (["--db", args.db] if args.db and arguments[0] == "bench" else [])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def ours(args, target, threads, seconds):
    options = [] if pathlib.Path(target).is_dir() else ["--fp32"]
    return json.loads(paretune(args, "bench", target, *options, "--threads", threads, "--seconds", seconds, "--json"))


def versions(engines):
    import importlib.metadata

    names = {ORT: "onnxruntime", OPENVINO: "openvino"}
    return ", ".join(f"{engine} {importlib.metadata.version(names[engine])}" for engine in engines if engine != OURS)


def layer_models(folder):
    import numpy
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    models = []
    generator = numpy.random.default_rng(0)
    for name, inputs, outputs, kernel, stride, groups, pixels in LAYERS:
        weights = generator.standard_normal((outputs, inputs // groups, kernel, kernel)).astype(numpy.float32)
        weights /= math.sqrt(weights[0].size)
        bias = generator.standard_normal(outputs).astype(numpy.float32)
        node = helper.make_node(
            "Conv",
            ["x", "w", "b"],
            ["c"],
            name="conv",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )
        side = (pixels + 2 * (kernel // 2) - kernel) // stride + 1
        graph = helper.make_graph(
            [node, helper.make_node("Relu", ["c"], ["y"], name="relu")],
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, inputs, pixels, pixels])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs, side, side])],
            [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        path = folder / f"{name.replace(' ', '_').replace('/', 'by')}.onnx"
        onnx.save(model, path)
        models.append((name, path))
    return models


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values))) if values else float("nan")


def cell(seconds):
    return f"{1e3 * seconds:.3f}" if seconds < 1e-2 else f"{1e3 * seconds:.2f}"


def table(args, engines, results, schedules):
    peers = [engine for engine in engines if engine != OURS]
    print("| network | threads | " + " | ".join(f"{e}, ms" for e in engines), end=" | ")
    print(" | ".join(f"{peer} / ours" for peer in peers) + " | fastest peer / ours | noise | schedules |")
    print("| --- " * (len(engines) + len(peers) + 5) + "|")
    ratios = {}
    for (name, threads), by_engine in results.items():
        medians = {e: statistics.median(t) for e, t in by_engine.items() if t}
        if OURS not in medians:
            continue
        row = [name, str(threads)] + [cell(medians[e]) if e in medians else "-" for e in engines]
        of_network = {p: medians[p] / medians[OURS] for p in peers if p in medians}
        row += [f"{of_network[p]:.2f}" if p in of_network else "-" for p in peers]
        if of_network:
            of_network["fastest"] = min(of_network.values())
        row.append(f"{of_network['fastest']:.2f}" if of_network else "-")
        # How far rounds disagree: half the distance between the quartiles, by the median, of the worst engine.
        spreads = [spread(times) for times in by_engine.values() if len(times) > 2]
        row.append(f"{100 * max(spreads):.0f} %" if spreads else "-")
        row.append(schedules.get((name, threads), "-"))
        print("| " + " | ".join(row) + " |")
        for peer, ratio in of_network.items():
            ratios.setdefault((threads, peer), []).append(ratio)
    for threads in args.thread_counts:
        means = [f"{geometric_mean(ratios[threads, p]):.2f}" if (threads, p) in ratios else "-" for p in [*peers, "fastest"]]
        print(f"| **geometric mean** | {threads} | " + " | ".join([""] * len(engines) + means + ["", ""]) + " |")


def spread(times):
    low, _, high = statistics.quantiles(times, n=4)
    return 0.5 * (high - low) / statistics.median(times)


def step_name(node):
    """What paretune calls the step of a node."""
    words = [re.sub(r"[^A-Za-z0-9]", "_", word) for word in re.split(r"[./]+", node.name) if word]
    return ".".join(words[:-1] if len(words) > 1 and words[-1] == node.op_type else words)


def profile_table(args, models):
    """Per shape: ours, ONNX Runtime's, and what we lose, the most first."""
    import onnx

    for name, path in models:
        inferred = onnx.shape_inference.infer_shapes(onnx.load(path))
        dims = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.graph.value_info}
        dims |= {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.graph.output}
        weights = {tensor.name: list(tensor.dims) for tensor in inferred.graph.initializer}
        keys = {}
        for node in inferred.graph.node:
            if node.op_type == "Conv" and node.input[1] in weights:
                keys[step_name(node)] = layer_key(weights[node.input[1]], dims[node.output[0]][2:])
            elif node.op_type in ("Gemm", "MatMul"):
                keys[step_name(node)] = "dense"
        for threads in args.thread_counts:
            seen = ours(args, path, threads, args.seconds)
            peer = ask_child("profile", ORT, path, threads, args.seconds)
            mine, shares, algorithms = {}, {}, {}
            for layer in seen["layers"]:
                key = keys.get(layer["name"], f"other: {layer['algorithm']}")
                mine[key] = mine.get(key, 0.0) + layer["seconds"]
                algorithms.setdefault(key, set()).add(layer["algorithm"])
                if layer["ceiling_share"] is not None:
                    shares.setdefault(key, []).append((layer["seconds"], layer["ceiling_share"]))
            print(f"\n{name}, {threads} thread(s): our layers {cell(sum(mine.values()))} ms, ONNX Runtime's {cell(sum(peer.values()))} ms\n")
            print("| layers | algorithm | ours, us | of ceiling | ONNX Runtime, us | lost, us |\n| --- | --- | --- | --- | --- | --- |")
            lost = {key: mine.get(key, 0.0) - peer.get(key, 0.0) for key in mine | peer}
            for key in sorted(lost, key=lost.get, reverse=True):
                known = shares.get(key, [])
                share = sum(s * c for s, c in known) / sum(s for s, _ in known) if known else None
                words = [
                    key,
                    ", ".join(sorted(algorithms.get(key, []))) or "-",
                    f"{1e6 * mine[key]:.1f}" if key in mine else "-",
                    f"{100 * share:.0f} %" if share else "-",
                    f"{1e6 * peer[key]:.1f}" if key in peer else "-",
                    f"{1e6 * lost[key]:+.1f}",
                ]
                print("| " + " | ".join(words) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=pathlib.Path, help="networks, as ONNX files")
    parser.add_argument("--paretune", default="target/release/paretune", help="the program")
    parser.add_argument("--db", default="", help="paretune's result store")
    parser.add_argument("--thread-counts", default="1,2", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--rounds", default=7, type=int)
    parser.add_argument("--seconds", default=1.0, type=float, help="of every measurement")
    parser.add_argument("--tune", type=float, metavar="SECONDS", help="tune every network on every thread count first")
    parser.add_argument("--layers", action="store_true", help="compare single layers")
    parser.add_argument("--keep-layers", type=pathlib.Path, metavar="FOLDER", help="write the layers' networks here, and keep them")
    parser.add_argument("--int8", action="store_true", help="compare 8-bit bundles with quantized peers")
    parser.add_argument("--bundle", action="append", default=[], metavar="NETWORK=FOLDER", help="run this bundle for it")
    parser.add_argument("--profile", action="store_true", help="compare layers of whole networks with ONNX Runtime's")
    parser.add_argument("--json", type=pathlib.Path, help="also write all measurements there")
    for hidden, kind in [("--child", str), ("--engine", str), ("--model", str), ("--threads", int), ("--output", str)]:
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    bundles = dict(text.split("=", 1) for text in args.bundle)
    scratch = tempfile.TemporaryDirectory()
    folder = pathlib.Path(scratch.name)
    models = [(path.stem, path.resolve()) for path in args.models]
    if args.layers:
        kept = args.keep_layers or folder
        kept.mkdir(parents=True, exist_ok=True)
        models += layer_models(kept)
    if not models:
        parser.error("name networks, or --layers")
    engines = [OURS]
    for engine, modules in (INT8_MODULES if args.int8 else MODULES).items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            print(f"{engine} is left out: `pip install {' '.join(missing)}` to compare it.\n")
        else:
            engines.append(engine)
    if args.profile:
        profile_table(args, models)
        return
    targets = {}
    for name, path in models:
        targets[name] = {engine: path for engine in engines} | {OURS: bundles.get(name, path)}
        if args.int8:
            if name not in bundles:
                print(f"{name} is left out: there is no --bundle {name}=FOLDER with 8-bit weights.\n")
                del targets[name]
                continue
            for engine in engines[1:]:
                output = folder / (f"{name}.int8.onnx" if engine == ORT else f"{name}.int8.xml")
                try:
                    ask_child("quantize", engine, path, 1, 0, output)
                    targets[name][engine] = output
                except RuntimeError as error:
                    print(f"{error}\n")
                    del targets[name][engine]
    if args.tune and not args.int8:
        for name, path in models:
            for threads in args.thread_counts:
                told = paretune(args, "bench", path, "--tune", "--budget", f"{args.tune:g}s", "--threads", threads, "--json")
                told = json.loads(told)
                print(f"{name}, {threads} thread(s): tuned {told['gain']:.2f}x, layers {told['layer_gain']:.2f}x", file=sys.stderr)
    results, schedules, failed = {}, {}, set()
    for turn in range(args.rounds):
        for name in targets:
            for threads in args.thread_counts:
                by_engine = results.setdefault((name, threads), {engine: [] for engine in engines})
                order = [engine for engine in engines if engine in targets[name]]
                random.Random(f"{turn} {name} {threads}").shuffle(order)
                for engine in order:
                    if (engine, name) in failed:
                        continue
                    try:
                        if engine == OURS:
                            told = ours(args, targets[name][engine], threads, args.seconds)
                            seconds = told["latency"]["raw_median"]
                            schedules[name, threads] = told.get("schedules") or "bundle"
                        else:
                            seconds = ask_child("time", engine, targets[name][engine], threads, args.seconds)["median"]
                        by_engine[engine].append(seconds)
                    except RuntimeError as error:
                        failed.add((engine, name))
                        print(f"{error}\n")
        print(f"round {turn + 1} of {args.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    machine = paretune(args, "devices", "--quick").splitlines()[0]
    print(f"{machine}. {versions(engines)}; {args.rounds} rounds of {args.seconds:g} s, load at the end {os.getloadavg()[0]:.1f}.\n")
    table(args, engines, results, schedules)
    if args.json:
        rows = [{"network": n, "threads": t, "seconds": by} for (n, t), by in results.items()]
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
