"""A folder as `sweep take` writes it, whose engine is a few lines of numpy."""

from __future__ import annotations

import importlib.resources
import json
from typing import TYPE_CHECKING

import numpy as np

from sweep.report.mlflow import Winner

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.storage import Record

ENGINE = """
import numpy as np

class Engine:
    def __init__(self, folder, manifest):
        self.inputs = {"x": (np.dtype("float32"), [2, 3])}

    def infer(self, inputs):
        return {"y": inputs["x"] * 2}
"""


def winner(folder: Path, record: Record, label: str = "digits b1") -> Winner:
    """Write the folder and return the variant that was taken into it."""
    folder.mkdir()
    (folder / "engine.py").write_text(ENGINE)
    loader = importlib.resources.files("sweep.cli.take.loaders") / "infer.py"
    (folder / "infer.py").write_bytes(loader.read_bytes())
    manifest = {
        "key": record.key,
        "sweep": record.sweep,
        "label": label,
        "sweep_version": "1",
        "bound_to": {"onnxruntime": "1.2.3"},
        "engine": {"library": "onnxruntime"},
        "environment": {},
        "files": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    np.savez(folder / "inputs.npz", x=np.ones((2, 3), np.float32))
    np.savez(folder / "outputs.npz", y=np.ones((2, 3), np.float32))
    return Winner(record=record, folder=folder, label=label, reason="recommended: the fastest", takes_batches=True)
