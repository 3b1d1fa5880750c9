"""``graph``: the pass over the fp32 graph."""

from __future__ import annotations

from functools import cache

from sweep import callables
from sweep.axes import GraphPass
from sweep.errors import ConfigError
from sweep.typed_onnx import SIMPLIFY


@cache
def graph_pass(asked: str) -> GraphPass | None:
    """The pass, a user's function with the digest of its source; None for ``none``. Read once a sweep."""
    if asked == "none":
        return None
    if asked == SIMPLIFY:
        return GraphPass(name=asked)
    if not callables.is_named(asked):
        raise ConfigError(f"graph={asked}: no such pass; there are: none, {SIMPLIFY}, or package.module:function")
    return GraphPass(name=asked, digest=callables.digest("graph", asked))
