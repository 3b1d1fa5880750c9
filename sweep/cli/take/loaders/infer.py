"""Run one inference on the engine in this folder, and check its outputs against those that were stored with it.

    python infer.py                     one inference on inputs.npz; prints the names and shapes of the outputs
    python infer.py --check             the same, and compares the outputs with outputs.npz
    python infer.py --inputs mine.npz   on other inputs: an array for each input, by name
    python infer.py --batch 2           on the first 2 samples, where the engine takes several batches

It needs numpy and the libraries that engine.py imports, nothing else. `manifest.json` says what the engine is bound to.

Exit codes: 0 done; 1 the outputs differ from the stored ones; 2 the engine cannot be run here, with the reason.

This file is in the public domain (CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/): use it as you like.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
CHUNK = 1 << 20
SAME_SHARE = 0.99  # of integers and booleans that have to be equal: an arg max may flip between two GPUs
SEED = 0


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--inputs", type=Path, metavar="FILE", help="inputs by name [inputs.npz, else random values]")
    parser.add_argument("--batch", type=int, metavar="N", help="samples of the inference [as measured]")
    parser.add_argument("--check", action="store_true", help="compare the outputs with outputs.npz")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the outputs as .npz")
    parser.add_argument("--save-inputs", type=Path, metavar="FILE", help="write the inputs as .npz")
    options = parser.parse_args()
    differing: list[str] = []
    try:
        manifest = json.loads((FOLDER / "manifest.json").read_text())
        os.environ.update(manifest["environment"])  # before the library is loaded
        verify(manifest["files"])
        engine_file = importlib.import_module("engine")  # the file beside this one
        differing = differences(manifest["bound_to"], engine_file.facts())
        if differing:
            sys.stderr.write(f"infer.py: note: {'; '.join(differing)}\n")
        inputs, outputs = run(engine_file.Engine(FOLDER, manifest), manifest, options)
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        line = f"{reason} ({'; '.join(differing)})" if differing else reason
        sys.stderr.write(f"infer.py: cannot run: {line}\n")
        return 2
    for name, value in outputs.items():
        print(f"output {name}: {value.dtype} {list(value.shape)}")
    if options.save_inputs is not None:
        np.savez(options.save_inputs, **inputs)
    if options.save is not None:
        np.savez(options.save, **outputs)
    return check(outputs, manifest, options) if options.check else 0


def verify(digests: dict[str, str]) -> None:
    """Refuse files that are not those that were taken: an engine is code that runs on the GPU."""
    for name, digest in digests.items():
        if name.startswith(("engine/", "plugins/")):
            content = hashlib.sha256()
            with (FOLDER / name).open("rb") as file:
                while chunk := file.read(CHUNK):
                    content.update(chunk)
            if content.hexdigest() != digest:
                raise ValueError(f"{name} has changed since it was taken (SHA-256): take or copy it again")


def differences(bound: dict[str, str], here: dict[str, str | None]) -> list[str]:
    """Return how this machine differs from the one that the engine was measured on, a part a fact."""
    return [
        f"{name} is {here[name]} here, and {value} where it was measured"
        for name, value in bound.items()
        if here.get(name) is not None and here[name] != value
    ]


def run(engine: Any, manifest: dict[str, Any], options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs and outputs of one inference."""
    measured = manifest["batch"]
    batch = measured if options.batch is None else options.batch
    least, most = engine.batches or (measured, measured)
    if not least <= batch <= most:
        raise ValueError(f"--batch {batch}: this engine takes {least}" + (f" to {most}" if most > least else ""))
    stored = options.inputs or FOLDER / "inputs.npz"
    if options.inputs is None and not stored.exists():
        inputs = {name: random_values(item, batch) for name, item in engine.inputs.items()}
    else:
        with np.load(stored) as arrays:
            inputs = {name: arrays[name] for name in arrays.files}
        missing = ", ".join(sorted(engine.inputs.keys() ^ inputs.keys()))
        if missing:
            raise ValueError(f"{stored.name} and the engine do not have the same inputs: {missing}")
        inputs = {name: fitted(inputs[name], item, batch, options) for name, item in engine.inputs.items()}
    return inputs, engine.infer(inputs)


def random_values(item: tuple[Any, list[int | None]], batch: int) -> Any:
    """Return values of an input of this type and shape, of which None is the batch."""
    dtype, shape = item
    sizes = [batch if size is None else size for size in shape]
    if np.dtype(dtype).kind in "iub":  # 0 is an index, a token and a mask in every network
        return np.zeros(sizes, dtype)
    return np.random.default_rng(SEED).normal(size=sizes).astype(dtype)


def fitted(value: Any, item: tuple[Any, list[int | None]], batch: int, options: argparse.Namespace) -> Any:
    """Return an input in the engine's type, and of the stored ones as many samples as the batch."""
    dtype, shape = item
    if shape and shape[0] is None and (options.inputs is None or options.batch is not None):
        value = np.resize(value, (batch, *value.shape[1:]))
    both_float = np.dtype(value.dtype).kind == np.dtype(dtype).kind == "f"
    return value.astype(dtype) if both_float else value


def check(outputs: dict[str, Any], manifest: dict[str, Any], options: argparse.Namespace) -> int:
    """Print how far the outputs are from the stored ones; return 1 where that is too far."""
    file = FOLDER / "outputs.npz"
    if options.inputs is not None or options.batch not in {None, manifest["batch"]}:
        sys.stderr.write("infer.py: cannot check: outputs.npz belongs to inputs.npz and the batch that was measured\n")
        return 2
    if not file.exists() or not (FOLDER / "inputs.npz").exists():
        sys.stderr.write(
            "infer.py: cannot check: no outputs are stored, for the engine could not run where it was taken; on a "
            "machine that you trust: python infer.py --save-inputs inputs.npz --save outputs.npz\n"
        )
        return 2
    least_db, failed = manifest["least_sqnr_db"], False
    with np.load(file) as expected:
        for name in expected.files:
            good, text = compared(expected[name], outputs.get(name), least_db)
            failed = failed or not good
            print(f"check  {name}: {'ok' if good else 'DIFFERS'}, {text}")
    return int(failed)


def compared(expected: Any, value: Any, least_db: float) -> tuple[bool, str]:
    """Return whether an output agrees with the stored one, and how far apart they are."""
    if value is None or value.shape != expected.shape:
        return False, f"shape {list(expected.shape)} is stored, {None if value is None else list(value.shape)} came"
    if np.array_equal(expected, value, equal_nan=expected.dtype.kind == "f"):
        return True, "equal"
    if expected.dtype.kind != "f":
        share = float(np.mean(expected == value))
        return share >= SAME_SHARE, f"{share:.2%} of the values are equal, of at least {SAME_SHARE:.0%}"
    before, now = expected.astype("float64"), value.astype("float64")
    if not np.array_equal(np.isfinite(before), np.isfinite(now)):
        return False, "values that are not finite have changed"
    finite = np.isfinite(before)
    noise = float(np.square(now[finite] - before[finite]).sum())
    signal = float(np.square(before[finite]).sum())
    level = math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf
    largest = float(np.abs(now[finite] - before[finite]).max(initial=0.0))
    return level >= least_db, f"{level:.1f} dB, of at least {least_db:.1f} dB; largest difference {largest:.3g}"


if __name__ == "__main__":
    sys.exit(main())
