#!/usr/bin/env python3
"""Searches the joint space of a network with Optuna, through `paretune evaluate`.

The space, the kernels and the scoring are those of `paretune search`, and the first trial is the
baseline. Only the sampler that proposes configurations differs. Limits become Optuna's constraints.
One JSON line per trial goes to --out: seconds since the start, and metrics. Needs
`pip install optuna`.

    optuna_search.py --sampler tpe --seconds 300 --limit latency=0.0005 --limit size=400000 \\
        --out tpe.jsonl --paretune target/release/paretune -- \\
        resnet20.onnx --data cifar10 --mean 125.3,123.0,113.9 --std 63.0,62.1,66.7
"""

import argparse
import json
import re
import subprocess
import sys
import time

import optuna

OBJECTIVES = ["accuracy", "latency", "size", "memory"]
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")


class Untouched:
    """A trial that suggests the values of the baseline."""

    def __init__(self, default):
        self.default, self.params = default, {}

    def suggest_categorical(self, label, values):
        wanted = self.default.get(label.split(" of ")[0])
        self.params[label] = wanted if wanted in values else values[0]
        return self.params[label]


class Space:
    """The parameters in order, each with the constraints that its value completes."""

    def __init__(self, described):
        self.parameters = described["parameters"]
        self.default = {p["name"]: p["default"] for p in self.parameters}
        names = {p["name"] for p in self.parameters}
        order = {p["name"]: i for i, p in enumerate(self.parameters)}
        self.slots = {name: f"v{i}" for name, i in order.items()}
        self.conditions = {
            p["name"]: self.compiled(p["condition"]) for p in self.parameters if p["condition"]
        }
        self.completed = {}
        for text in described["constraints"]:
            used = {word for word in NAME.findall(text) if word in names}
            last = max(used, key=order.__getitem__)
            self.completed.setdefault(last, []).append((used, self.compiled(text)))

    def compiled(self, text):
        """Replaces dotted names by identifiers; quoted words are values and are kept."""
        parts = re.split(r"('[^']*')", text)
        parts = [
            p if p.startswith("'") else NAME.sub(lambda m: self.slots.get(m[0], m[0]), p)
            for p in parts
        ]
        return compile("".join(parts), text, "eval")

    def allowed(self, name, values, known):
        """Returns the values that satisfy every constraint that this parameter completes."""

        def fits(value):
            scope = {**known, self.slots[name]: value}
            for used, code in self.completed.get(name, []):
                try:
                    if not eval(code, {"__builtins__": {}}, scope):
                        return False
                except NameError:  # An inactive parameter has no constraints.
                    continue
            return True

        return [value for value in values if fits(value)]

    def suggest(self, trial):
        config, known = {}, {}
        for parameter in self.parameters:
            name = parameter["name"]
            condition = self.conditions.get(name)
            if condition:
                try:
                    if not eval(condition, {"__builtins__": {}}, known):
                        continue
                except NameError:
                    continue
            values = self.allowed(name, parameter["values"], known)
            if not values:
                raise optuna.TrialPruned(f"no value of {name} is allowed")
            # Optuna requires fixed choices for each name, so the name contains the allowed values.
            label = name if len(values) == len(parameter["values"]) else f"{name} of {values}"
            value = values[0] if len(values) == 1 else trial.suggest_categorical(label, values)
            config[name] = value
            known[self.slots[name]] = value
        return config


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--sampler", choices=["tpe", "nsga2"], required=True)
    arguments.add_argument("--seconds", type=float, required=True)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument(
        "--limit", action="append", default=[], help="METRIC=VALUE: stay below it"
    )
    arguments.add_argument("--out", required=True)
    arguments.add_argument("--paretune", default="paretune")
    arguments.add_argument(
        "workload", nargs="+", help="the network and how its images are read, after --"
    )
    args = arguments.parse_args()
    model, *rest = args.workload
    described = json.loads(
        subprocess.run(
            [args.paretune, "space", model, "--json", *rest],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    space = Space(described)
    limits = [(name, float(value)) for name, value in (limit.split("=") for limit in args.limit)]

    def violations(trial):
        metrics = trial.user_attrs.get("metrics")
        return [metrics[name] - value if metrics else float("inf") for name, value in limits]

    constraints = {"constraints_func": violations} if limits else {}
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(
            seed=args.seed, multivariate=True, group=True, **constraints
        ),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(
            seed=args.seed, population_size=20, **constraints
        ),
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        directions=["maximize", "minimize", "minimize", "minimize"],
        sampler=samplers[args.sampler](),
    )
    untouched = Untouched(space.default)
    space.suggest(untouched)
    study.enqueue_trial(untouched.params)
    worker = subprocess.Popen(
        [args.paretune, "evaluate", model, "--config", "-", *rest],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    started = time.monotonic()
    with open(args.out, "w", encoding="utf-8") as out:
        while time.monotonic() - started < args.seconds:
            trial = study.ask()
            try:
                config = space.suggest(trial)
            except optuna.TrialPruned:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                continue
            worker.stdin.write(json.dumps(config) + "\n")
            worker.stdin.flush()
            answer = json.loads(worker.stdout.readline())
            metrics = answer.get("metrics")
            if metrics:
                trial.set_user_attr("metrics", metrics)
                study.tell(trial, [metrics[name] for name in OBJECTIVES])
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            line = {
                "elapsed": time.monotonic() - started,
                "metrics": metrics,
                "failed": answer.get("failed"),
            }
            out.write(json.dumps(line) + "\n")
            out.flush()
    worker.stdin.close()
    worker.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
