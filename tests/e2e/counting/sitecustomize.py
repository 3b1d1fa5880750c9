"""On PYTHONPATH, Python runs this at its start: every build in every worker writes a line to ``SWEEP_TEST_BUILDS``."""

import os
from pathlib import Path

from sweep.backends.onnxruntime.backend import OnnxRuntime
from sweep.backends.simulated import Simulated


def counted(kind):
    original = kind.build

    def build(self, onnx, variant, shapes, target):
        with Path(os.environ["SWEEP_TEST_BUILDS"]).open("a") as file:
            file.write(f"{self.name} {variant.label}\n")
        return original(self, onnx, variant, shapes, target)

    kind.build = build


counted(OnnxRuntime)
counted(Simulated)
