"""Run the code cells of a notebook in one namespace, as a kernel would, and return the text of each result."""

from __future__ import annotations

import ast
import contextlib
import io
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def cells(path: Path) -> list[dict[str, Any]]:
    """Return the code cells."""
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def run(path: Path, **names: Any) -> list[str]:
    """Return what each code cell prints, followed by the text of its last expression.

    Args:
        path: the notebook.
        names: what the namespace has before the first cell.
    """
    space: dict[str, Any] = {"__name__": "__main__", **names}
    texts = []
    for number, cell in enumerate(cells(path), 1):
        body = ast.parse("".join(cell["source"]), filename=f"{path.name}, cell {number}").body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(ast.Module(body, []), f"cell {number}", "exec"), space)  # noqa: S102 - the project's own
            if last is not None:
                value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), space)  # noqa: S307 - same
                if value is not None:
                    print(repr(value))  # noqa: T201 - captured
        texts.append(out.getvalue())
    return texts


def shown(cell: dict[str, Any]) -> str:
    """Return the text of the outputs that the notebook's file has of a cell."""
    texts = [output.get("text") or output["data"]["text/plain"] for output in cell["outputs"]]
    return "".join(part if isinstance(part, str) else "".join(part) for part in texts)
