#!/usr/bin/env python3
"""Times paretune and other CPU engines on the same networks, in turns, and prints a Markdown table.

Every measurement is a fresh process. In each round all engines run a network in a new random order.
A round's result is the plain median of all runs (also for paretune: nothing is left out or scaled
here), and the final result is the median over the rounds. Batch size is 1. Ratios are peer / ours:
above 1, paretune is faster.

    peers.py --paretune target/release/paretune resnet20.onnx mobilenet.onnx
    peers.py --tune 60 ...                      tunes every network before the comparison
    peers.py --layers                           times single layers: 3x3, 1x1, depthwise
    peers.py --int8 --bundle resnet20=FOLDER .. compares 8-bit bundles to quantized peers
    peers.py --profile ...                      compares layers with those of ONNX Runtime

paretune pins its threads to cores. The peers run on the first N cores only, with N threads that do
not sleep between layers. tract runs on one thread, in single precision, because it supports nothing
else. LiteRT (XNNPACK) reads and writes images in NHWC, all others in NCHW. That makes no difference
for a network, but for a single layer the other engines may have to convert both.

Missing engines are reported and left out: `pip install onnx onnxruntime`, and optionally `openvino`
and `nncf`, `tract`, and for LiteRT the packages that the script names. These include TensorFlow, to
convert networks; `--litert-python` names another Python that has it. The peers are calibrated on
noise: their times do not depend on it, although accuracies would. engines.py runs the peers.
"""

import argparse
import json
import math
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

from engines import INT8_MODULES, INT8_PREPARED, LITERT, MODULES, ORT, PREPARED, TRACT, layer_key

# Layers of CIFAR networks (3x3) and of MobileNet at 224x224 (1x1 and depthwise) at batch 1:
# name, channels in, channels out, kernel, stride, groups, pixels per side.
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
OURS = "paretune"
ONE_THREAD = {TRACT}


def ask_engine(args, task, engine, threads=1, **options):
    """Runs engines.py in a process of its own and returns its result."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    python = args.litert_python if engine == LITERT else sys.executable
    command = [
        python,
        str(pathlib.Path(__file__).with_name("engines.py")),
        task,
        engine,
        "--threads",
        str(threads),
    ]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        command + (["--int8"] if args.int8 else []),
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores) if task == "time" else None,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"{engine} on {options.get('model', 'no network')}: {lines[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def paretune(args, *arguments):
    command = [args.paretune, *map(str, arguments)] + (
        ["--db", args.db] if args.db and arguments[0] == "bench" else []
    )
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def ours(args, target, threads, seconds):
    options = [] if pathlib.Path(target).is_dir() else ["--fp32"]
    return json.loads(
        paretune(
            args, "bench", target, *options, "--threads", threads, "--seconds", seconds, "--json"
        )
    )


def layer_models(folder):
    import numpy
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    models = []
    generator = numpy.random.default_rng(0)
    for name, inputs, outputs, kernel, stride, groups, pixels in LAYERS:
        weights = generator.standard_normal((outputs, inputs // groups, kernel, kernel)).astype(
            numpy.float32
        )
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
    print(
        " | ".join(f"{peer} / ours" for peer in peers)
        + " | fastest peer / ours | noise | schedules |"
    )
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
        # Disagreement of the rounds: half the quartile distance by the median, of the worst engine.
        spreads = [spread(times) for times in by_engine.values() if len(times) > 2]
        row.append(f"{100 * max(spreads):.0f} %" if spreads else "-")
        row.append(schedules.get((name, threads), "-"))
        print("| " + " | ".join(row) + " |")
        for peer, ratio in of_network.items():
            ratios.setdefault((threads, peer), []).append(ratio)
    for threads in args.thread_counts:
        means = [
            f"{geometric_mean(ratios[threads, p]):.2f}" if (threads, p) in ratios else "-"
            for p in [*peers, "fastest"]
        ]
        print(
            f"| **geometric mean** | {threads} | "
            + " | ".join([""] * len(engines) + means + ["", ""])
            + " |"
        )


def spread(times):
    low, _, high = statistics.quantiles(times, n=4)
    return 0.5 * (high - low) / statistics.median(times)


def step_name(node):
    """Returns paretune's name for the step of a node."""
    words = [re.sub(r"[^A-Za-z0-9]", "_", word) for word in re.split(r"[./]+", node.name) if word]
    return ".".join(words[:-1] if len(words) > 1 and words[-1] == node.op_type else words)


def profile_table(args, models):
    """Prints the times of layers by shape, largest difference first."""
    import onnx

    for name, path in models:
        inferred = onnx.shape_inference.infer_shapes(onnx.load(path))
        dims = {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in inferred.graph.value_info
        }
        dims |= {
            v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in inferred.graph.output
        }
        weights = {tensor.name: list(tensor.dims) for tensor in inferred.graph.initializer}
        keys = {}
        for node in inferred.graph.node:
            if node.op_type == "Conv" and node.input[1] in weights:
                keys[step_name(node)] = layer_key(weights[node.input[1]], dims[node.output[0]][2:])
            elif node.op_type in ("Gemm", "MatMul"):
                keys[step_name(node)] = "dense"
        for threads in args.thread_counts:
            seen = ours(args, path, threads, args.seconds)
            peer = ask_engine(args, "profile", ORT, threads, model=path, seconds=args.seconds)
            mine, shares, algorithms = {}, {}, {}
            for layer in seen["layers"]:
                key = keys.get(layer["name"], f"other: {layer['algorithm']}")
                mine[key] = mine.get(key, 0.0) + layer["seconds"]
                algorithms.setdefault(key, set()).add(layer["algorithm"])
                if layer["ceiling_share"] is not None:
                    shares.setdefault(key, []).append((layer["seconds"], layer["ceiling_share"]))
            print(
                f"\n{name}, {threads} thread(s): our layers {cell(sum(mine.values()))} ms, "
                f"ONNX Runtime's {cell(sum(peer.values()))} ms\n"
            )
            print("| layers | algorithm | ours, us | of ceiling | ONNX Runtime, us | lost, us |")
            print("| --- | --- | --- | --- | --- | --- |")
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


def peers_present(args):
    """Returns the versions of the installed peers and reports the missing ones."""
    versions = {}
    for engine in INT8_MODULES if args.int8 else MODULES:
        try:
            found = ask_engine(args, "probe", engine)
        except RuntimeError as error:
            print(f"{error}\n")
            continue
        if found["missing"]:
            pip = f"{args.litert_python} -m pip" if engine == LITERT else "pip"
            print(
                f"{engine} is left out: `{pip} install {' '.join(found['missing'])}` "
                "to compare it.\n"
            )
        else:
            versions[engine] = found["version"]
    return versions


def prepare(args, models, peers, folder):
    """Returns for each network the file that every engine runs."""
    bundles = dict(text.split("=", 1) for text in args.bundle)
    endings = INT8_PREPARED if args.int8 else PREPARED
    targets = {}
    for name, path in models:
        if args.int8 and name not in bundles:
            print(f"{name} is left out: there is no --bundle {name}=FOLDER with 8-bit weights.\n")
            continue
        targets[name] = {OURS: bundles.get(name, path)}
        for engine in peers:
            output = folder / (path.stem + endings[engine]) if engine in endings else path
            try:
                if output != path:
                    ask_engine(args, "prepare", engine, model=path, output=output)
                targets[name][engine] = output
            except RuntimeError as error:
                print(f"{error}\n")
    return targets


def tune(args, models):
    for name, path in models:
        for threads in args.thread_counts:
            told = paretune(
                args,
                "bench",
                path,
                "--tune",
                "--budget",
                f"{args.tune:g}s",
                "--threads",
                threads,
                "--json",
            )
            told = json.loads(told)
            print(
                f"{name}, {threads} thread(s): tuned {told['gain']:.2f}x, "
                f"layers {told['layer_gain']:.2f}x",
                file=sys.stderr,
            )


def measure(args, engines, targets):
    """Times every engine in every round; returns the seconds and paretune's schedules."""
    results, schedules, failed = {}, {}, set()
    for turn in range(args.rounds):
        for name in targets:
            for threads in args.thread_counts:
                by_engine = results.setdefault((name, threads), {engine: [] for engine in engines})
                order = [
                    engine
                    for engine in engines
                    if engine in targets[name] and (threads == 1 or engine not in ONE_THREAD)
                ]
                random.Random(f"{turn} {name} {threads}").shuffle(order)
                for engine in order:
                    if (engine, name) in failed:
                        continue
                    target = targets[name][engine]
                    try:
                        if engine == OURS:
                            told = ours(args, target, threads, args.seconds)
                            seconds = told["latency"]["raw_median"]
                            schedules[name, threads] = told.get("schedules") or "bundle"
                        else:
                            seconds = ask_engine(
                                args, "time", engine, threads, model=target, seconds=args.seconds
                            )["median"]
                        by_engine[engine].append(seconds)
                    except RuntimeError as error:
                        failed.add((engine, name))
                        print(f"{error}\n")
        print(f"round {turn + 1} of {args.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return results, schedules


def options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=pathlib.Path, help="networks, as ONNX files")
    parser.add_argument("--paretune", default="target/release/paretune", help="the program")
    parser.add_argument("--db", default="", help="paretune's result store")
    parser.add_argument(
        "--litert-python",
        default=sys.executable,
        metavar="PATH",
        help="Python with LiteRT (default: this one)",
    )
    parser.add_argument(
        "--thread-counts", default="1,2", type=lambda text: [int(n) for n in text.split(",")]
    )
    parser.add_argument("--rounds", default=7, type=int)
    parser.add_argument("--seconds", default=1.0, type=float, help="of every measurement")
    parser.add_argument(
        "--tune",
        type=float,
        metavar="SECONDS",
        help="tune every network on every thread count first",
    )
    parser.add_argument("--layers", action="store_true", help="compare single layers")
    parser.add_argument(
        "--keep-layers",
        type=pathlib.Path,
        metavar="FOLDER",
        help="folder that keeps the networks of single layers",
    )
    parser.add_argument(
        "--int8", action="store_true", help="compare 8-bit bundles with quantized peers"
    )
    parser.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="NETWORK=FOLDER",
        help="bundle that paretune runs instead of the network",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="compare layers of whole networks with ONNX Runtime's",
    )
    parser.add_argument("--json", type=pathlib.Path, help="also write all measurements there")
    args = parser.parse_args()
    if not args.models and not args.layers:
        parser.error("name networks, or --layers")
    if shutil.which(args.litert_python) is None:
        parser.error(f"there is no {args.litert_python} to run")
    return args


def main():
    args = options()
    scratch = tempfile.TemporaryDirectory()
    folder = pathlib.Path(scratch.name)
    models = [(path.stem, path.resolve()) for path in args.models]
    if args.layers:
        kept = args.keep_layers or folder
        kept.mkdir(parents=True, exist_ok=True)
        models += layer_models(kept)
    if args.profile:
        profile_table(args, models)
        return
    versions = peers_present(args)
    engines = [OURS, *versions]
    targets = prepare(args, models, versions, folder)
    if args.tune and not args.int8:
        tune(args, models)
    results, schedules = measure(args, engines, targets)
    machine = paretune(args, "devices", "--quick").splitlines()[0]
    peers = ", ".join(f"{engine} {version}" for engine, version in versions.items())
    print(
        f"{machine}. {peers}; {args.rounds} rounds of {args.seconds:g} s, "
        f"load at the end {os.getloadavg()[0]:.1f}.\n"
    )
    table(args, engines, results, schedules)
    if args.json:
        rows = [{"network": n, "threads": t, "seconds": by} for (n, t), by in results.items()]
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
