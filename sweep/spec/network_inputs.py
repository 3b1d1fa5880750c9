"""Describe what is set about the inputs of a network: shapes, ranges, named dimensions; and how that is typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweep.spec.axis import plain_text
from sweep.spec.input_names import is_plain_key, table_key

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFix:
    """Describe what the user fixed about one input of their model.

    Attributes:
        name: of the ONNX input.
        shape: one entry per dimension, an int or the word ``batch``; None keeps the file's own shape.
        low: smallest random value (inclusive); None is the default of the element type.
        high: largest random value (inclusive for integers); None is the default of the element type.
    """

    name: str
    shape: tuple[int | str, ...] | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportInput:
    """Describe one example argument that a PyTorch module was exported with.

    Attributes:
        name: of the argument.
        shape: one entry per dimension, an int or the word ``batch``.
        dtype: element type, such as float32.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """Set a named dimension of a network.

    Attributes:
        name: of the dimension: a symbol of a user's file, or what the built-in network calls it.
        size: its size.
    """

    name: str
    size: int

    def __str__(self) -> str:
        """Return the dimension as it is typed: ``seq:128``."""
        return f"{self.name}:{self.size}"


def shape_text(shape: tuple[Dimension, ...] | None) -> str:
    """Return sizes of dimensions as they are typed, as in ``h:224+w:320``; null for none."""
    return "+".join(map(str, shape or ())) or "null"


def shape_word(shape: tuple[Dimension, ...]) -> str:
    """Return sizes of dimensions as a word of the label: ``h224w320``."""
    return "".join(f"{item.name}{item.size}" for item in shape)


def inputs_cell(inputs: tuple[InputFix, ...]) -> str:
    """Return what the user fixed about the inputs, as in ``x[batch,512] sr=16000..16000``."""
    texts = []
    for fix in inputs:
        shape = "" if fix.shape is None else plain_text(fix.shape)
        limits = "" if (fix.low, fix.high) == (None, None) else f"={plain_text(fix.low)}..{plain_text(fix.high)}"
        texts.append(f"{fix.name}{shape}{limits}")
    return ",".join(texts) or "null"


def inputs_overrides(inputs: tuple[InputFix, ...]) -> Mapping[str, Any]:
    """Return the keys that set `inputs`."""
    fixed = {
        table_key(fix.name): {
            "name": None if is_plain_key(fix.name) else fix.name,
            "shape": fix.shape and list(fix.shape),
            "low": fix.low,
            "high": fix.high,
        }
        for fix in inputs
    }
    return {
        "model.inputs": {
            name: {key: value for key, value in fix.items() if value is not None} for name, fix in fixed.items()
        }
    }
