"""Read the inputs and outputs of a loaded engine that was built elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sweep.errors import UnsupportedError

if TYPE_CHECKING:
    from sweep.backends.tensorrt.library import Library
    from sweep.spec import JsonDict

_OPEN = -1  # size of a dimension that the profile leaves open


def read_tensors(library: Library, engine: Any) -> JsonDict:
    """Return {inputs, outputs, profiles} of an engine, as ``SupportsPlans.import_plan`` has them.

    Args:
        library: loaded the engine.
        engine: the library's own object.

    Raises:
        UnsupportedError: a session cannot feed or read a tensor: its type, its format or its place; one line.
    """
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    tensors: dict[bool, list[JsonDict]] = {True: [], False: []}
    for name in names:
        is_input = engine.get_tensor_mode(name) == library.trt.TensorIOMode.INPUT
        tensor = _tensor(library, engine, name)
        tensors[is_input].append({**tensor, **_profile(engine, name, tensor["shape"])} if is_input else tensor)
    return {
        "inputs": tensors[True],
        "outputs": tensors[False],
        "profiles": int(getattr(engine, "num_optimization_profiles", 1)),
    }


def _tensor(library: Library, engine: Any, name: str) -> JsonDict:
    dtype = engine.get_tensor_dtype(name)
    try:
        numpy_type = np.dtype(library.trt.nptype(dtype)).name
    except TypeError as error:
        raise UnsupportedError(
            f"tensor {name} of the plan is {dtype.name}, which numpy does not have; build it with float32 at its ends"
        ) from error
    place = getattr(engine.get_tensor_location(name), "name", "DEVICE")
    if place != "DEVICE":
        raise UnsupportedError(
            f"tensor {name} of the plan is a shape that is read on the host, and sweep feeds the device alone; "
            "build it with that shape fixed"
        )
    form = getattr(engine.get_tensor_format(name), "name", "LINEAR")
    if form != "LINEAR":
        raise UnsupportedError(
            f"tensor {name} of the plan has the format {form}, and sweep feeds linear ones; build it without "
            "--inputIOFormats and --outputIOFormats, or with TYPE:chw"
        )
    return {"name": name, "dtype": numpy_type, "shape": [int(size) for size in engine.get_tensor_shape(name)]}


def _profile(engine: Any, name: str, shape: list[int]) -> JsonDict:
    """Return the smallest, optimal and largest shape of an input in the first profile, which a context takes."""
    if _OPEN not in shape:
        return {"least": shape, "best": shape, "most": shape}
    shapes = [[int(size) for size in limit] for limit in engine.get_tensor_profile_shape(name, 0)]
    return dict(zip(("least", "best", "most"), shapes, strict=True))
