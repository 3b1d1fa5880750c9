"""Export a PyTorch module in a child process: ``python -m sweep.models.importers.torch_worker``.

Two JSON lines in on stdin (what to import, then where to write), one line out for each on what was stdout; whatever
libraries print goes to stderr. It imports what the user named on the command line, and nothing else of theirs.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.system import RefusedError, one_line, refusing, regular_files, required, serve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

BATCH = "batch"
OPSET = 20
_EXAMPLE_BATCH = 2  # PyTorch takes a dimension of 1 for fixed
_ATTRIBUTE = "example_input_array"
_INSTALL = "pip install torch onnxscript (the extra `export`)"
_SINGLE_FILE_BYTES = 1_500_000_000


def main() -> None:
    """Answer the two questions."""
    sys.path.insert(0, str(Path.cwd()))
    exports: list[_Export] = []

    def answer(message: Mapping[str, Any]) -> dict[str, Any]:
        if exports:
            return {"made_by": exports[0].write(Path(message["target"]))}
        exports.append(_Export(message["reference"], message["inputs"]))
        return {"key": exports[0].key()}

    serve(answer)


class _Export:
    """Hold a module of the user's, with an example of its inputs.

    Args:
        reference: ``package.module:factory``.
        inputs: {name, shape, dtype, fill} of each argument; none leaves it to the module's own example.
    """

    def __init__(self, reference: str, inputs: list[dict[str, Any]]) -> None:
        self._torch = required("torch", "exporting", _INSTALL)
        required("onnxscript", "exporting", _INSTALL)
        before = set(sys.modules)
        self._torch.manual_seed(0)  # random weights are the same each time, and so is the key
        self._module = _call_factory(self._torch, reference)
        self._files = _files(set(sys.modules) - before)
        self._reference = reference
        self._module.eval().to("cpu")
        self._names = list(inspect.signature(self._module.forward).parameters)
        self._examples, self._axes = self._requested_examples(inputs) if inputs else self._own()

    def key(self) -> str:
        """Hash the weights, every file that the import brought in, the shapes and the versions."""
        digest = hashlib.sha256()
        shapes = {name: [str(value.dtype), list(value.shape)] for name, value in self._examples.items()}
        for part in (self._reference, _versions(), self._files, shapes, self._axes, OPSET):
            digest.update(json.dumps(part, sort_keys=True).encode())
        for name, value in self._module.state_dict().items():
            digest.update(name.encode())
            if self._torch.is_tensor(value):
                digest.update(value.detach().contiguous().reshape(-1).view(self._torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def write(self, target: Path) -> dict[str, str]:
        """Export to ``target``, weights beside it where a protobuf would end."""
        batch = self._torch.export.Dim(BATCH, min=1)
        dynamic = {name: None if axis is None else {axis: batch} for name, axis in self._axes.items()}
        size = sum(value.numel() * value.element_size() for value in self._module.state_dict().values())
        with refusing("PyTorch could not export it"), self._torch.no_grad():
            self._torch.onnx.export(
                self._module,
                kwargs=self._examples,
                f=str(target),
                input_names=list(self._examples),
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=dynamic if any(dynamic.values()) else None,
                external_data=size > _SINGLE_FILE_BYTES,
                verbose=False,
            )
        return _versions()

    def _requested_examples(self, inputs: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, int | None]]:
        """Make examples of the shapes that the user gave, in the order of forward's arguments."""
        items = {item["name"]: item for item in inputs}
        unknown = sorted(set(items) - set(self._names))
        if unknown:
            raise RefusedError(
                f"model.inputs names {', '.join(unknown)}, but forward takes {', '.join(self._names)}; correct the name"
            )
        ordered = [items[name] for name in self._names if name in items]
        axes = {item["name"]: item["shape"].index(BATCH) if BATCH in item["shape"] else None for item in ordered}
        return {item["name"]: self._example(item) for item in ordered}, axes

    def _example(self, item: Mapping[str, Any]) -> Any:
        torch = self._torch
        dtype = getattr(torch, item["dtype"], None)
        if not isinstance(dtype, torch.dtype):
            raise RefusedError(f"model.inputs.{item['name']}.dtype={item['dtype']}: torch has no such type")
        shape = [_EXAMPLE_BATCH if size == BATCH else size for size in item["shape"]]
        if item["fill"] is not None:
            return torch.full(shape, item["fill"], dtype=dtype)
        return torch.randn(shape, dtype=dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)

    def _own(self) -> tuple[dict[str, Any], dict[str, int | None]]:
        """Return the module's own example, as PyTorch Lightning knows it: a tensor, several, or a dict by argument."""
        own = getattr(self._module, _ATTRIBUTE, None)
        if own is None:
            first = self._names[0] if self._names else "x"
            raise RefusedError(
                f"the shapes of its inputs are not known (forward takes {', '.join(self._names)}); give them as in "
                f"'+model.inputs.{first}.shape=[batch,3,224,224]', or give the module an attribute {_ATTRIBUTE}"
            )
        examples = own if isinstance(own, dict) else dict(zip(self._names, _several(own), strict=False))
        if not all(self._torch.is_tensor(value) for value in examples.values()):
            raise RefusedError(f"{_ATTRIBUTE} must be a tensor, a tuple of tensors or a dict of tensors by argument")
        sizes = [value.shape[0] for value in examples.values() if value.ndim]
        batched = {name: bool(value.ndim) and value.shape[0] == sizes[0] for name, value in examples.items()}
        doubled = {name: self._at_least_two(value) if batched[name] else value for name, value in examples.items()}
        return doubled, {name: 0 if has_batch else None for name, has_batch in batched.items()}

    def _at_least_two(self, value: Any) -> Any:
        return value if value.shape[0] >= _EXAMPLE_BATCH else self._torch.cat([value] * _EXAMPLE_BATCH)


def _call_factory(torch: Any, reference: str) -> Any:
    """Return what the factory returns, if that is a module."""
    place, _, path = reference.partition(":")
    value: Any = _import_module(place)
    for name in path.split("."):
        if not hasattr(value, name):
            near = difflib.get_close_matches(name, dir(value), n=1)
            hint = f"did you mean {near[0]}?" if near else "correct the name"
            raise RefusedError(f"{place} has no {name}; {hint}")
        value = getattr(value, name)
    if not callable(value):
        raise RefusedError(f"{path} is a {type(value).__name__}, and must be callable without arguments")
    with refusing(f"calling {path}() failed"):
        module = value()
    if not isinstance(module, torch.nn.Module):
        raise RefusedError(f"{path}() returned a {type(module).__name__}, and must return a torch.nn.Module")
    return module


def _import_module(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise RefusedError(f"importing {place} failed: {one_line(error)}; install it") from error
        raise RefusedError(
            f"no module {error.name} in {Path.cwd()} or among the installed packages; run from the folder that has "
            "it, or install it"
        ) from error
    except Exception as error:
        raise RefusedError(f"importing {place} failed: {one_line(error)}") from error


def _files(names: set[str]) -> dict[str, str]:
    """Compute the SHA-256 of the source of every newly imported module, by its name."""
    digests = {}
    for name in sorted(names):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and Path(file).is_file():
            digests[name] = hashlib.sha256(regular_files.read_bytes(Path(file), follow=True)).hexdigest()
    return digests


def _several(own: Any) -> tuple[Any, ...]:
    return tuple(own) if isinstance(own, (tuple, list)) else (own,)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "onnxscript", "onnx")}


if __name__ == "__main__":
    main()
