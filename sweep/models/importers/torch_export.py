"""Export PyTorch to ONNX in a child process, so that no process that measures imports torch.

The child (``sweep.models.importers.torch_worker``) imports the module that the user named, calls the factory, and says
what the export hangs on: only if that is new is anything exported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from sweep.errors import ConfigError, ModelError
from sweep.system import ChildProcess, RefusedError, module_command, module_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Hold what the user says of an argument of ``forward``.

    Attributes:
        name: the argument's name; the ONNX input is called by it.
        shape: one entry per dimension, an int or the word ``batch``.
        dtype: numpy's and torch's name of the element type.
        fill: value of every element in the example; None draws standard normals, or zeros for integers.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    fill: float | None = None


def factory_name(reference: str) -> str:
    """Return the factory's name in ``package.module:factory``.

    Raises:
        ConfigError: the reference is not of that form.
    """
    if not _REFERENCE.fullmatch(reference):
        raise ConfigError(
            f"model.torch={reference}: must be package.module:factory, as in torchvision.models:resnet18; the factory "
            "is called without arguments and returns a torch.nn.Module"
        )
    return reference.partition(":")[2].rpartition(".")[2]


class TorchExport:
    """Run a child process that holds the user's module.

    Args:
        reference: ``package.module:factory``.
        examples: shapes that the user gave; none leaves it to the module's ``example_input_array``.

    Attributes:
        key: what decides the export: weights, code, versions and shapes.

    Raises:
        ModelError: torch is missing, the module cannot be imported or made, or its inputs are not known.
    """

    def __init__(self, reference: str, examples: tuple[Example, ...]) -> None:
        self._reference = reference
        self._child = ChildProcess(
            module_command("sweep.models.importers.torch_worker"),
            "the exporting process",
            environment=module_environment(),
        )
        try:
            inputs = [{"name": it.name, "shape": it.shape, "dtype": it.dtype, "fill": it.fill} for it in examples]
            self.key: str = self._ask({"reference": reference, "inputs": inputs})["key"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, target: Path) -> dict[str, Any]:
        """Export to ``target``; the versions that did it.

        Raises:
            ModelError: PyTorch could not export it; its own first line.
        """
        return self._ask({"target": str(target)})["made_by"]  # type: ignore[no-any-return]  # JSON

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._child.request(message)
        except RefusedError as error:
            raise ModelError(f"model.torch={self._reference}: {error}") from error

    def close(self) -> None:
        """End the child; nothing the second time."""
        self._child.close()
