"""Write the folder of a variant that is taken: engine, loader, record, recipe, figures, digests."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.resources
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweep import __version__, models, spec
from sweep.backends import registry
from sweep.backends.tensorrt import PLAN
from sweep.cli import one_network
from sweep.cli.take import card, engine_entry
from sweep.errors import ConfigError, SweepError, shorten
from sweep.models import evaluation
from sweep.precision import NATIVE
from sweep.runner import recipe_file
from sweep.storage import record_file
from sweep.system import DeviceLock, atomic_files, child_process, devices, regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sweep.backends import Backend
    from sweep.cli.take.engine_entry import Source
    from sweep.cli.take.selection import Choice
    from sweep.spec import JsonDict, Variant

FORMAT, FORMAT_VERSION = "sweep-variant", 1
_ONNXRUNTIME = "onnxruntime"
_LOADERS = "sweep.cli.take.loaders"
_BOUND = {
    _ONNXRUNTIME: ("onnxruntime", "cpu"),
    "tensorrt": ("tensorrt", "gpu", "compute_capability", "driver"),
    "tensorrt_rtx": ("tensorrt", "gpu", "compute_capability", "driver"),
}
_CHUNK = 1 << 20
_MOST_DB = 60.0  # of two runs of one engine whose kernels sum in another order
_SLACK_DB = 6.0  # by which they may be further apart than the engine is from fp32
_CHECK_S = 600.0
_ALL = 0o777


class UncheckedError(SweepError):
    """Report an engine that does not run here, where it should. Exit code 1, nothing is taken."""

    stage = "take"


@contextlib.contextmanager
def assembled(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` when the block ends; it is removed if the block raises.

    Args:
        out: path that is free, or an empty folder.
    """
    scratch = atomic_files.temporary_folder(out)
    try:
        yield scratch
        mask = os.umask(0)
        os.umask(mask)
        scratch.chmod(_ALL & ~mask)
        scratch.rename(out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def folder_names(choices: Sequence[Choice]) -> list[str]:
    """Return the name of the folder of each variant: its label, with the sweep and the key as far as it takes."""
    several = len({choice.store.root for choice in choices}) > 1
    words = [f"{choice.store.root.name} {choice.label}" if several else choice.label for choice in choices]
    names = [re.sub(r"[^\w.+=-]+", "-", word, flags=re.ASCII).strip("-.")[:100] or "variant" for word in words]
    return [
        f"{name}-{choice.record.key[:8]}" if names.count(name) > 1 else name
        for name, choice in zip(names, choices, strict=True)
    ]


def write(folder: Path, choice: Choice, source: Source) -> str:
    """Write the folder of a variant and run its loader; return a line on what that showed.

    Args:
        folder: to create.
        choice: the variant.
        source: its engine.

    Raises:
        ConfigError: a file that the engine needs is gone or another one.
        UncheckedError: the engine does not run here, where it should.
    """
    one_network.check(choice.record, "take")
    record, variant = choice.record, spec.from_record(choice.record.variant)
    backend = registry.get(variant.backend)
    folder.mkdir()
    engine_file = _copy_engine(folder / "engine", source)
    plugins = _copy_plugins(folder / "plugins", variant)
    (folder / "record.json").write_bytes(record_file.encode(record))
    recipe = _write_recipe(folder, choice, variant)
    _copy_loader(folder, variant.backend)
    has_inputs = _write_inputs(folder / "inputs.npz", variant)
    digest = (record.engine or {}).get("plan_digest")
    manifest: JsonDict = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "sweep_version": __version__,
        "label": choice.label,
        "sweep": choice.store.root.name,
        "key": record.key,
        "model": record.variant.get("model"),
        "batch": variant.engine.batch,
        "engine": {
            "library": variant.backend,
            "file": f"engine/{engine_file}",
            "key": source.entry.path.name,
            "digest": source.entry.content_digest,
            "is_the_measured_one": digest is None or digest == source.entry.content_digest,
            "load": _load_settings(variant, source.entry.info, plugins),
        },
        "environment": backend.environment(variant),
        "bound_to": {
            name: value for name in _BOUND[variant.backend] if (value := dict(record.facts).get(name)) is not None
        },
        "least_sqnr_db": _least_sqnr_db(choice),
        "recipe": recipe,
        "command": list(engine_entry.command_words(choice)),
        "files": {},
    }
    _write_manifest(folder, manifest)
    check = _run_loader(folder, variant, backend, has_inputs=has_inputs, has_plugins=bool(plugins))
    manifest["check"] = check
    (folder / "README.md").write_text(card.text(choice, variant, manifest, engine_bytes=source.entry.bytes))
    manifest["files"] = _digests(folder)
    _write_manifest(folder, manifest)
    sums = {**manifest["files"], "manifest.json": _sha256(folder / "manifest.json")}
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    return check


def _copy_engine(folder: Path, source: Source) -> str:
    """Copy every file of the engine, external weights included; return the name of the one to load."""
    for name, digest in source.entry.files.items():
        _copy(source.entry.path / name, folder / name, digest)
    names = [name for name in source.entry.files if name == PLAN or name.endswith(".onnx")]
    if not names:
        raise ConfigError(f"{source.entry.path} holds no engine: `sweep cache prune` and build it again")
    return names[0]


def _copy_plugins(folder: Path, variant: Variant) -> list[str]:
    names = []
    for number, plugin in enumerate(variant.engine.plugins or ()):
        name = f"{number}-{Path(plugin.path).name}"
        _copy(Path(plugin.path), folder / name, plugin.digest)
        names.append(f"{folder.name}/{name}")
    return names


def _copy(source: Path, target: Path, digest: str) -> None:
    """Copy a file whose content has this digest.

    Raises:
        ConfigError: it is gone, or has another content.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    content = hashlib.sha256()
    try:
        with regular_files.open_input(source, follow=True) as file, target.open("wb") as copy:
            while chunk := file.read(_CHUNK):
                content.update(chunk)
                copy.write(chunk)
    except FileNotFoundError as error:
        raise ConfigError(f"{source} is gone; put it back, or measure the variant again") from error
    if content.hexdigest() != digest:
        raise ConfigError(f"{source} is not the file that was measured (SHA-256); measure the variant again")


def _write_recipe(folder: Path, choice: Choice, variant: Variant) -> JsonDict:
    """Write the precision recipe, and describe it and the graph pass; a plan that came as a plan has none."""
    engine, precision = choice.record.engine or {}, variant.onnx.precision
    described: JsonDict = {
        "precision": precision.name,
        "file": None,
        "graph_pass": None if variant.onnx.graph is None else dataclasses.asdict(variant.onnx.graph),
        "notes": engine.get("onnx_notes", []),
    }
    if variant.engine.plan is None and precision.dtype != NATIVE:
        described["file"] = f"precision/{precision.name}.yaml"
        path = folder / described["file"]
        path.parent.mkdir()
        comment = (f"Recipe of {choice.label}; sweep --config-dir FOLDER precision={precision.name} takes it.",)
        path.write_text(recipe_file.text(variant, comment))
    return described


def _copy_loader(folder: Path, backend: str) -> None:
    engine = "onnxruntime" if backend == _ONNXRUNTIME else "tensorrt"
    files = importlib.resources.files(_LOADERS)
    for source, target in (("infer.py", "infer.py"), (f"{engine}_engine.py", "engine.py")):
        (folder / target).write_bytes((files / source).read_bytes())


def _write_inputs(path: Path, variant: Variant) -> bool:
    """Write the inputs that were timed; return whether they are of types that .npz holds, and could be made again."""
    samples, labels = variant.load.samples, variant.load.labels
    try:
        if samples is None and (variant.reference is None or (labels is not None and labels.kind == "function")):
            if variant.reference is None:  # of a plan that came alone, its loader knows the inputs
                return False
            values = models.draw(models.signature(variant.onnx.model), variant.engine.batch, variant.load.seed)
        else:
            values = evaluation.feeds(variant, variant.engine.batch)
    except (SweepError, OSError, ValueError):  # the user's files have moved: the loader draws values of its own
        return False
    if any(value.dtype.kind not in "fiub" for value in values.values()):
        return False
    arrays: dict[str, Any] = dict(values)
    np.savez(path, **arrays)
    return True


def _load_settings(variant: Variant, info: JsonDict, plugins: Sequence[str]) -> JsonDict:
    """Return what the loader has to set, as the backend does."""
    if variant.backend == _ONNXRUNTIME:
        return {
            "intra_op_threads": variant.session.intra_op_threads or 1,
            "optimise": bool(info.get("unsaved")),
            "dims": info.get("dims", {}),
            "fp8": bool(info.get("fp8")),
        }
    return {
        "plugins": list(plugins),
        "version_compatible": bool(variant.engine.version_compatible),
        "weight_streaming_budget_mib": variant.session.weight_streaming_budget_mib,
    }


def _least_sqnr_db(choice: Choice) -> float:
    """Return how near to the stored outputs others have to be: as near as the engine is to fp32, less a margin, dB."""
    accuracy = choice.record.accuracy
    level = None if accuracy is None else accuracy["sqnr_db"]
    return round(min(_MOST_DB if level is None else level, _MOST_DB) - _SLACK_DB, 1)


def _run_loader(folder: Path, variant: Variant, backend: Backend, *, has_inputs: bool, has_plugins: bool) -> str:
    """Run the loader, which stores the outputs to check against; return a line on it.

    Raises:
        UncheckedError: it fails, though the backend runs here.
    """
    reason = backend.unsupported(variant)
    if has_plugins:
        reason = "its plugins are code of others"
    if reason is not None:
        return f"not run here ({reason}): run infer.py where it is to be served"
    words = [sys.executable, "-B", "infer.py", "--save", "outputs.npz"]
    words += [] if has_inputs else ["--save-inputs", "inputs.npz"]
    with _device(backend) as environment:
        try:
            done = subprocess.run(
                words,
                cwd=folder,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_CHECK_S,
                check=False,
                preexec_fn=child_process.DIE_WITH_PARENT,  # see there
            )
        except subprocess.TimeoutExpired as error:
            raise UncheckedError(f"the loader of {folder.name} did not end within {_CHECK_S:g} s: {error}") from error
    if done.returncode != 0:
        line = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UncheckedError(f"the engine of {folder.name} does not run here, nothing is taken: {shorten(line)}")
    with np.load(folder / "outputs.npz") as outputs:
        shapes = ", ".join(f"{name} {list(outputs[name].shape)}" for name in outputs.files)
    return f"infer.py ran here, its outputs are stored: {shapes}"


@contextlib.contextmanager
def _device(backend: Backend) -> Iterator[dict[str, str]]:
    """Lock the GPU while the loader runs, so that it disturbs no measurement; yield the variables that name it."""
    if not backend.on_gpu:
        yield {}
        return
    device = devices.find_devices(None)[0]
    lock = DeviceLock(f"gpu-{device.uuid or 'any'}", None, _note)
    lock.acquire()
    try:
        yield device.environment
    finally:
        lock.release()


def _note(line: str) -> None:
    sys.stderr.write(f"sweep take: {line}\n")


def _write_manifest(folder: Path, manifest: JsonDict) -> None:
    files = manifest["files"] or _digests(folder)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": files}, indent=1) + "\n")


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path in the folder; the manifest, which has them, is none of them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in files
        if path.relative_to(folder).as_posix() not in {"manifest.json", "SHA256SUMS"}
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
