"""Tell a network that refuses its inputs, their sizes or the batch, from one that cannot be converted, built or run."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from sweep import models, precision
from sweep.errors import BuildError, ConversionError, ModelError, SessionError
from sweep.models import evaluation
from sweep.runner.worker import model_files, reference
from sweep.system import nested_graphs, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sweep.spec import Variant
    from sweep.storage.cache import Cache

_OPERATOR = re.compile(r"while running (\w+) node")  # of onnxruntime
_STAGES = (ModelError, ConversionError, BuildError, SessionError)  # of which each may be the first to run the graph


@contextlib.contextmanager
def explained(variant: Variant, cache: Cache) -> Iterator[None]:
    """Replace the error of a stage by the cause that lies before it: the fp32 network does not run on these inputs.

    The sizes that a message advises for open dimensions are examples. A network that is fed too few samples of sound
    is met by whatever runs it first, which would call the file broken. It is run here only after such an error.
    Where it runs, and the converted graph does not, the message also has the operator to keep in fp32.

    Raises:
        ModelError: in place of an error of the context; other errors pass.
    """
    try:
        yield
    except _STAGES as error:
        if variant.reference is None:  # a plan that came without its network
            raise
        refusal = refused(variant, cache)
        if refusal is not None:
            raise ModelError(refusal) from None
        operator = _OPERATOR.search(str(error))
        converted = not precision.passes_through(variant.onnx.precision)
        if operator is None or not converted or not _holds(model_files.loadable_file(variant, cache), operator[1]):
            raise
        advice = f"the fp32 network runs, so keep this operator in fp32: precision.keep=[{operator[1]}]"
        raise type(error)(f"{error}; {advice}") from error


def _holds(path: Path, operator: str) -> bool:
    """Tell whether a graph has an operator: onnxruntime also names those that it fused."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    return any(node.op_type == operator for graph in nested_graphs(model.graph) for node in graph.node)


def refused(variant: Variant, cache: Cache) -> str | None:
    """Return why the fp32 network does not run on the inputs of a variant, and what to do; None where it runs.

    None also where onnxruntime cannot load it, which says nothing of its inputs.
    """
    if variant.reference is None:  # a plan that came without a network
        return None
    model, batch = variant.onnx.model, variant.engine.batch
    try:
        signature = models.signature(model)
        infer = reference.runner(model_files.loadable_file(variant, cache))
    except ModelError:
        return None

    def fault(samples: int) -> str | None:
        try:
            own = variant.load.samples is not None
            infer(evaluation.feeds(variant, samples) if own else models.draw(signature, samples, variant.load.seed))
        except ModelError as error:
            return one_line(error)
        return None

    cause = fault(batch)
    if cause is None:
        return None
    if batch > 1 and fault(1) is None:
        return f"{model.name} runs at batch 1 and not at batch {batch}, whatever it declares ({cause}): ask for batch=1"
    ranges = "the range of its inputs (model.inputs.NAME.low= and .high=)"
    fixes = [fix for fix in model.inputs if fix.shape is not None]
    if not fixes:
        return f"{model.name} does not run on these inputs: {cause}; give {ranges}, or check the file"
    sizes = ", ".join(f"{fix.name}=[{','.join(map(str, fix.shape or ()))}]" for fix in fixes)
    return (
        f"{model.name} does not run with {sizes}: {cause}; these sizes are yours to choose, so take those that the "
        f"network is made for, or give {ranges}"
    )
