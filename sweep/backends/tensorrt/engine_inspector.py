"""Report the types that an engine computes in, from the engine inspector or the builder's own layer listing.

The inspector needs a loaded engine and hence a GPU; TensorRT-RTX also lists the layers while it builds, on any machine.
Both are brought to one form, which is stored beside the engine as ``inspector.json``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from sweep.spec import PER_SHAPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.backends.tensorrt.library import Library
    from sweep.spec import JsonDict, Variant

FILE = "inspector.json"
_QUANTISED = ("int8", "fp8")
_NARROWEST_FIRST = (*_QUANTISED, "fp16", "bf16", "fp32")
_ALIASES = {
    "int8": ("int8",),
    "fp8": ("fp8", "float8", "e4m3", "fp8e4m3"),
    "fp16": ("half", "fp16", "float16"),
    "bf16": ("bf16", "bfloat16"),
    "fp32": ("float", "fp32", "float32"),
}
_TYPE_OF_ALIAS = {word: name for name, words in _ALIASES.items() for word in words}
# Layers that carry the arithmetic: convolutions and matrix products, as the libraries name them. "fusion" is a
# matrix product with what follows it; a generated kernel ("kgen") counts where its name says that it multiplies.
_COMPUTE_TYPE = re.compile(
    r"correlation|conv|gemm|matrixmultiply|matrix_multiply|matmul|fusion|attention|mha", re.IGNORECASE
)
_COMPUTE_NAME = re.compile(r"__myl_\w*?Fc[A-Z_]|_gemm_|_mha_")
_LINE = re.compile(
    r"^Name: (?P<Name>.*?), LayerType: (?P<LayerType>[^,]*), Inputs: \[(?P<Inputs>.*?)\], "
    r"(?:Constants: \[(?P<Constants>.*?)\], )?Outputs: \[(?P<Outputs>.*?)\], TacticName: (?P<TacticName>.*?), "
    r"StreamId: (?P<StreamId>\d*).*?(?:Metadata: (?P<Metadata>.*))?$",
    re.MULTILINE,
)
_TENSOR = re.compile(
    r"Name: (?P<Name>[^,]*), (?:Dimensions: \[(?P<Dimensions>[\d,-]*)\], )?.*?Datatype: (?P<Datatype>\w+)"
    r"(?:, Format: (?P<Format>[^}]*?) ?(?=\}|$))?"
)


def inspect_engine(library: Library, engine: Any) -> JsonDict:
    """Return the inspector's JSON of a loaded engine, with its ``source``. Layers are mere names if it is not detailed.

    Source:
        *Engine Inspector* of the TensorRT developer guide.
    """
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(library.member("LayerInformationFormat", "JSON"))
    information: JsonDict = json.loads(text, strict=False)  # layer metadata is separated by control characters
    return {"source": "inspector", "Layers": [], **information}


def parse_listing(listing: str) -> JsonDict:
    """Convert the builder's listing of the layers to the inspector's form."""
    layers = []
    for match in _LINE.finditer(listing.removeprefix("Layers:\n")):
        layer: JsonDict = dict(match.groupdict(default=""))
        for side in ("Inputs", "Constants", "Outputs"):
            layer[side] = [_listed_tensor(tensor) for tensor in _TENSOR.finditer(str(layer[side]))]
        layers.append(layer)
    return {"source": "builder", "Layers": layers}


def _listed_tensor(match: re.Match[str]) -> JsonDict:
    """Return a tensor of the builder's listing in the inspector's form."""
    told: JsonDict = {name: text for name, text in match.groupdict().items() if text is not None}
    if "Dimensions" in told:
        told["Dimensions"] = [int(size) for size in told["Dimensions"].split(",") if size]
    return told


def inspect_network(network: Any) -> JsonDict:
    """Describe the layers of a parsed network in the inspector's form, with the types that the engine must keep.

    It is the evidence where ``profiling_verbosity`` hides the engine's layers.
    """
    layers = []
    for layer in (network.get_layer(number) for number in range(network.num_layers)):
        inputs = [layer.get_input(number) for number in range(layer.num_inputs)]
        types = [{"Datatype": item.dtype.name} for item in inputs if item is not None]
        layers.append({"Name": layer.name, "LayerType": layer.type.name, "Inputs": types})
    return {"source": "network", "Layers": layers}


def count_layer_types(information: JsonDict) -> dict[str, int]:
    """Count the layers of each type among those that carry the arithmetic, or among all if none does.

    A layer's type is the narrowest floating or quantised type among its inputs: a quantised product may well add a
    float32 bias.
    """
    layers = [layer for layer in information["Layers"] if isinstance(layer, dict)]
    counted = [layer for layer in layers if carries_arithmetic(layer)] or layers
    types = Counter(filter(None, map(_type, counted)))
    return {name: types[name] for name in _NARROWEST_FIRST if types[name]}


def select_best(sources: Sequence[JsonDict]) -> JsonDict:
    """Return the first source that shows a layer which carries arithmetic, else the first; an empty one without any.

    An inspector that shows a whole network as one opaque node tells less than the builder's listing.
    """
    detailed = [
        source
        for source in sources
        if any(isinstance(layer, dict) and carries_arithmetic(layer) for layer in source["Layers"])
    ]
    return next(iter([*detailed, *sources]), {"source": None, "Layers": []})


def carries_arithmetic(layer: JsonDict) -> bool:
    """Return whether a layer of a listing is a convolution or a matrix product."""
    kind, name = str(layer.get("LayerType", "")), str(layer.get("Name", ""))
    return bool(_COMPUTE_TYPE.search(kind) or _COMPUTE_NAME.search(name))


def _type(layer: JsonDict) -> str | None:
    types = {tensor_type(tensor) for tensor in layer.get("Inputs", [])}
    return next((name for name in _NARROWEST_FIRST if name in types), None)


def tensor_type(tensor: JsonDict) -> str | None:
    """Return the type of one tensor; older versions give it inside the description of the format."""
    text = next(
        (str(tensor[key]) for key in ("Datatype", "DataType", "Format/Datatype", "Format") if key in tensor), ""
    )
    return next(
        (_TYPE_OF_ALIAS[word] for word in re.split(r"[^a-z0-9]+", text.lower()) if word in _TYPE_OF_ALIAS), None
    )


def mismatch(variant: Variant, realised: JsonDict) -> str | None:
    """Return how the loaded engine differs from the request, in one line; None if it does not."""
    profiles, contexts = variant.engine.profiles, variant.session.streams
    if profiles is not None and profiles.way == PER_SHAPE and not variant.session.profile_switch:
        contexts *= len(profiles.shapes)
    if realised["contexts"] != contexts:
        each = "" if contexts == variant.session.streams else f", so for {contexts} contexts"
        return f"asked for {variant.session.streams} streams{each}, found {realised['contexts']} contexts"
    if realised["cuda_graph"] != variant.session.cuda_graph:
        return f"asked for cuda_graph={variant.session.cuda_graph}, but the session ran with {realised['cuda_graph']}"
    if variant.engine.plan is not None:
        return None  # it computes in what it was built with
    return _precision_mismatch(variant.onnx.precision.dtype, variant.onnx.precision.rest, realised["precision"])


def _precision_mismatch(requested: str, rest: str | None, counts: dict[str, int]) -> str | None:
    if not counts:
        return f"asked for {requested}, but nothing tells which types the engine computes in"
    if requested == "native":
        return None
    if requested in {"fp32", "tf32"}:
        return f"asked for {requested}, but the engine computes in {counts}" if set(counts) - {"fp32"} else None
    if not counts.get(requested):
        return f"asked for {requested}, but no layer of the engine computes in it: {counts}"
    others = set(counts) - {
        requested,
        rest,
        "fp32",
    }  # fp32: what the recipe kept, and what the library has no other kernel for
    return f"asked for {requested} beside {rest or 'fp32'}, but the engine computes in {counts}" if others else None
