"""Declare an axis once: `axis` makes a dataclass field that carries everything the project knows of the axis.

The command line's schema and help, the checks, labels, table columns, the "With ..." line, the filters and trtexec's
flags are all made from this metadata (`sweep.spec.axes` lists the axes). Adding a field here adds it everywhere.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sweep.spec.checks import Check

METADATA = "axis"  # key of a field's metadata that holds its `AxisInfo`
KNOB_PLACE = 20  # place of the axes that most sweeps leave alone
_NOT_SET: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtexecFlag:
    """Describe how the value of an axis is passed to NVIDIA's trtexec and tensorrt_rtx.

    Attributes:
        build: value -> arguments of a build from ONNX; None if the builder does not need the axis.
        run: value -> arguments of every run; None if a run does not need the axis.
        note: why no flag expresses it, for the list that is printed below a command; None if a flag does.
        rtx: whether tensorrt_rtx documents the flag; if not, the axis is on that list.
        special: whether `sweep.cli.trtexec.flags` derives the arguments itself, from the record or from several axes.
    """

    build: Callable[[Any], Sequence[str]] | None = None
    run: Callable[[Any], Sequence[str]] | None = None
    note: str | None = None
    rtx: bool = True
    special: bool = False


SPECIAL = TrtexecFlag(special=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisInfo:
    """Hold the metadata of an axis: everything besides its type and default.

    Attributes:
        key: key on the command line; None if it follows from other axes, as the digest of a file does.
        help: line of `--help`.
        cli_default: default on the command line, which None in the axis stands for.
        hint: type on the command line; None for that of the field.
        check: refuses values that the type allows; None if every value of the type is valid.
        word: value -> word of the label, or "" for none; None shows `column=value` if the axis varies.
        place: position of the word in the label and of the key in "With ..."; axes of one place keep their order.
        column: head of the column in tables.
        cell: value -> short text of a table cell; None shows `plain_text`.
        overrides: value -> {key: value} of the command line; None takes {`key`: value}.
        trtexec: flag of NVIDIA's binaries; None where they have none.
    """

    key: str | None
    help: str
    cli_default: Any
    hint: Any
    check: Check | None
    word: Callable[[Any], str] | None
    place: int
    column: str | None
    cell: Callable[[Any], str] | None
    overrides: Callable[[Any], Mapping[str, Any]] | None
    trtexec: TrtexecFlag | None


def axis(  # noqa: PLR0913 - one keyword for each attribute of AxisInfo
    default: Any = MISSING,
    *,
    key: str | None,
    help: str = "",  # noqa: A002 - argparse and dataclass metadata call it so
    cli_default: Any = _NOT_SET,
    hint: Any = None,
    check: Check | None = None,
    word: Callable[[Any], str] | None = None,
    place: int = KNOB_PLACE,
    column: str | None = None,
    cell: Callable[[Any], str] | None = None,
    overrides: Callable[[Any], Mapping[str, Any]] | None = None,
    trtexec: TrtexecFlag | None = None,
    in_key: bool = True,
) -> Any:
    """Return a dataclass field that is an axis.

    Args:
        default: value of the field, kept out of the key if None; if left out, the field is required.
        key: see `AxisInfo` for this and all that follow.
        help: line of `--help`.
        cli_default: default on the command line; if left out, `default`.
        hint: type on the command line.
        check: refuses values that the type allows.
        word: value -> word of the label.
        place: position of the word in the label.
        column: head of the column in tables; if None, the field's name.
        cell: value -> short text of a table cell.
        overrides: value -> {key: value} of the command line.
        trtexec: flag of NVIDIA's binaries.
        in_key: False for a field that identifies nothing, such as the path of a file whose digest is another field.
    """
    info = AxisInfo(
        key=key,
        help=help,
        cli_default=(None if default is MISSING else default) if cli_default is _NOT_SET else cli_default,
        hint=hint,
        check=check,
        word=word,
        place=place,
        column=column,
        cell=cell,
        overrides=overrides,
        trtexec=trtexec,
    )
    return field(default=default, metadata={METADATA: info, "key": in_key})


def prefixed(prefix: str) -> Callable[[Any], str]:
    """Return a function of the value that makes a label's word with `prefix`: ``opt5``, ``refit-on``."""
    return lambda value: f"{prefix}{on_or_off(value) if isinstance(value, bool) else plain_text(value)}"


def on_or_off(value: object) -> str:
    """Return the word of a label for a boolean."""
    return "on" if value else "off"


def plain_text(value: Any) -> str:
    """Return `value` as it is typed on the command line: null, true, 0.5, [1,2]; other structures as JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(plain_text(item) for item in value)}]"
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, dict) else str(value)


def flag(name: str, form: Callable[[Any], Any] = plain_text) -> Callable[[Any], Sequence[str]]:
    """Return a function of the value that makes the argument ``name=form(value)``, for `TrtexecFlag`."""
    return lambda value: (f"{name}={form(value)}",)


def switch(name: str) -> Callable[[Any], Sequence[str]]:
    """Return a function of the value that makes the argument ``name`` if the value is true, for `TrtexecFlag`."""
    return lambda value: (name,) if value else ()
