"""Load an engine of `sweep take` as MLflow serves models. This file travels with the model, and imports no sweep.

It is in the public domain (CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/): use it as you like.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any


class Model:
    """Hold the engine of a folder that was taken.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        os.environ.update(manifest["environment"])  # before the library is loaded
        self._engine = _module("sweep_engine", folder / "engine.py").Engine(folder, manifest)

    def predict(self, inputs: Any, params: dict[str, Any] | None = None) -> Any:
        """Return the outputs of one inference, by name.

        Args:
            inputs: array of each input, by name.
            params: none are known.

        Raises:
            ValueError: the names are not those of the engine's inputs.
        """
        wanted = self._engine.inputs
        if params:
            raise ValueError(f"an engine takes no params: {', '.join(params)}")
        if set(inputs) != set(wanted):
            raise ValueError(f"the inputs are {', '.join(map(str, inputs))}; the engine takes {', '.join(wanted)}")
        return self._engine.infer({name: inputs[name].astype(wanted[name][0], copy=False) for name in wanted})


def _load_pyfunc(path: str) -> Model:
    """Return the model in the folder at `path`; MLflow calls it."""
    folder = Path(path)
    _module("sweep_infer", folder / "infer.py").verify(json.loads((folder / "manifest.json").read_text())["files"])
    return Model(folder)


def _module(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
