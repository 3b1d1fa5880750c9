"""Convert a TensorFlow SavedModel to ONNX by tf2onnx, in a child process."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from sweep.errors import ModelError, shorten
from sweep.system import child_process, regular_files

if TYPE_CHECKING:
    from pathlib import Path

OPSET = 18  # the last that tf2onnx writes
_INSTALL = "pip install tf2onnx tensorflow (the extra `saved_model`)"
_TOOLS = ("tf2onnx", "tensorflow")
_EXCEPTION = re.compile(r"[\w.]*(?:Error|Exception)\b")  # how the last part of a traceback begins


def content(folder: Path) -> dict[str, str]:
    """Return what decides the conversion: the SHA-256 of every file, and the versions of the tools.

    Raises:
        ModelError: it is no SavedModel, or tf2onnx or TensorFlow is not installed.
    """
    if not (folder / "saved_model.pb").is_file():
        raise ModelError(
            f"model.saved_model={folder}: there is no saved_model.pb in it; give the folder that "
            "tf.saved_model.save or keras' model.export wrote"
        )
    return _versions(folder) | {
        str(path.relative_to(folder)): hashlib.sha256(regular_files.read_bytes(path, follow=True)).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _versions(folder: Path) -> dict[str, str]:
    versions = {}
    for name in _TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise ModelError(f"model.saved_model={folder}: needs {name}, which is not installed; {_INSTALL}") from error
    return versions


def convert(folder: Path, target: Path) -> dict[str, str]:
    """Write the model's first signature to ``target``; the versions that did it.

    Raises:
        ModelError: tf2onnx could not; its last line.
    """
    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(folder), "--output", str(target)]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "--opset", str(OPSET)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **quiet},
        preexec_fn=child_process.DIE_WITH_PARENT,
    )
    if done.returncode or not target.is_file():
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reason = shorten(_exception(lines)) if lines else f"it ended with status {done.returncode}"
        raise ModelError(
            f"model.saved_model={folder}: tf2onnx could not convert it: {reason}; convert it by other means and give "
            "model.path"
        )
    return _versions(folder)


def _exception(lines: list[str]) -> str:
    """Return the exception at the end of a traceback with all lines of its message; the last line without one."""
    starts = [number for number, line in enumerate(lines) if _EXCEPTION.match(line)]
    return "\n".join(lines[starts[-1] if starts else -1 :])
