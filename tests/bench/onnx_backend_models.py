"""The onnx package's own test models through the whole chain: inspected, converted to fp16, built and run.

``python tests/bench/onnx_backend_models.py [--match TEXT] [--every N] [--show KIND]`` prints each outcome that is not
``ran``, and counts of them. Each model runs in a process of its own, on the inputs of its own test. The outcomes:

- ran: onnxruntime ran the fp16 graph.
- refused: one line of ours with a cause, before or while it was built.
- failed: a Python error, or a message without a cause. The exit code is then 1.
- crashed: the process died or took more than 60 s.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from sweep import models
from sweep.backends import registry
from sweep.errors import SweepError
from sweep.runner.worker import artifacts
from sweep.spec import ModelRef, OnnxAxes, Precision, Variant
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    Inputs = list[Any]

_LIMIT_S = 60
_WITHOUT_CAUSE = re.compile(
    r"no message|'NoneType'|"
    r"\b(Stop|Key|Type|Value|Attribute|Index|Runtime|Assertion|ZeroDivision|NotImplemented)(Iteration|Error)\b"
)
_DIGITS = re.compile(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\d+")


@dataclass(frozen=True)
class Case:
    """One test model.

    Attributes:
        name: of the test.
        model: the graph.
        inputs: one value per graph input, of the test's first data set.
    """

    name: str
    model: onnx.ModelProto
    inputs: list[Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a model.

    Attributes:
        kind: ran, refused, failed or crashed.
        line: the message of what did not run.
    """

    kind: str
    line: str = ""


def cases() -> Iterator[Case]:
    """Yield the models of the onnx package's node tests."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    for case in found:
        if case.model is not None and case.data_sets:
            yield Case(case.name, case.model, list(case.data_sets[0][0]))


def outcome(case: Case, folder: Path) -> Outcome:
    """Take one model through the chain, in this process."""
    try:
        _run(case, folder)
    except SweepError as error:
        line = str(error)
        explained = line.strip() and "\n" not in line and not _WITHOUT_CAUSE.search(line)
        return Outcome("refused" if explained else "failed", f"{type(error).__name__}: {line}")
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return Outcome("ran")


def _run(case: Case, folder: Path) -> None:
    path = folder / "net.onnx"
    onnx.save(case.model, path)
    ref = ModelRef(name=case.name, path=str(path), digest=models.file_digest(path))
    models.signature(ref)
    variant = Variant(onnx=OnnxAxes(model=ref, precision=Precision(name="fp16", dtype="fp16")), backend="onnxruntime")
    backend = registry.get("onnxruntime")
    made = artifacts.make_artifacts(variant, backend, Cache(folder / "cache"))
    names = [value.name for value in case.model.graph.input]
    feeds = {name: np.ascontiguousarray(_array(value)) for name, value in zip(names, case.inputs, strict=False)}
    session = backend.load(made.engine.path, made.engine.info, variant, feeds)
    session.streams[0].enqueue()
    session.outputs()


def _array(value: Any) -> Any:
    """The array of an input that the test gives as a tensor of ONNX, for a type that numpy lacks."""
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def apart(case: Case) -> Outcome:
    """Take one model through the chain, in a forked process."""
    with tempfile.TemporaryDirectory(prefix="backend-") as folder:
        result = Path(folder, "outcome.json")
        child = os.fork()
        if not child:
            signal.alarm(_LIMIT_S)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            one = outcome(case, Path(folder))
            result.write_text(json.dumps([one.kind, one.line]))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not result.exists():
            return Outcome("crashed", f"wait status {status}")
        return Outcome(*json.loads(result.read_text()))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default="", help="only tests with this text in their names")
    parser.add_argument("--every", type=int, default=1, help="each n-th model only")
    parser.add_argument("--offset", type=int, default=0, help="the first of these")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    for case in [case for case in cases() if options.match in case.name][options.offset :: options.every]:
        one = apart(case)
        counts[one.kind] += 1
        if one.kind != "ran":
            causes[f"{one.kind}: {_DIGITS.sub('_', one.line)[:150]}"] += 1
            _say(f"{one.kind} {case.name}: {one.line[:300]}")
    for cause, count in causes.most_common():
        _say(f"{count:5} {cause}")
    _say(f"{', '.join(f'{kind} {count}' for kind, count in sorted(counts.items()))} of {counts.total()}")
    return int(bool(counts["failed"] or counts["crashed"]))


if __name__ == "__main__":
    sys.exit(main())
