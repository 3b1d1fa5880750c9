"""What an engine really computes in: layers by type, from the engine inspector or the builder's own listing.

The inspector answers for a loaded engine, so it needs a GPU; TensorRT-RTX also lists the layers while it builds,
on any machine. Both are brought to one form, which is kept beside the engine as ``inspector.json``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.backends.tensorrt.library import Library
    from sweep.spec import JsonDict, Variant

FILE = "inspector.json"
_QUANTISED = ("int8", "fp8")
_NARROWEST_FIRST = (*_QUANTISED, "fp16", "bf16", "fp32")
_SPELT = {
    "int8": ("int8",),
    "fp8": ("fp8", "float8", "e4m3", "fp8e4m3"),
    "fp16": ("half", "fp16", "float16"),
    "bf16": ("bf16", "bfloat16"),
    "fp32": ("float", "fp32", "float32"),
}
_WORDS = {word: name for name, words in _SPELT.items() for word in words}
# Layers that carry the arithmetic: convolutions and matrix products, as the libraries name them. "fusion" is a
# matrix product with what follows it; a generated kernel ("kgen") counts where its name says that it multiplies.
_COMPUTE_TYPE = re.compile(
    r"correlation|conv|gemm|matrixmultiply|matrix_multiply|matmul|fusion|attention|mha", re.IGNORECASE
)
_COMPUTE_NAME = re.compile(r"__myl_\w*?Fc[A-Z_]|_gemm_|_mha_")
_LINE = re.compile(
    r"^Name: (?P<Name>.*?), LayerType: (?P<LayerType>[^,]*), Inputs: \[(?P<Inputs>.*?)\], "
    r"(?:Constants: \[(?P<Constants>.*?)\], )?Outputs: \[(?P<Outputs>.*?)\], TacticName: (?P<TacticName>.*?), "
    r"StreamId: .*?(?:Metadata: (?P<Metadata>.*))?$",
    re.MULTILINE,
)
_TENSOR = re.compile(r"Name: (?P<Name>[^,]*), .*?Datatype: (?P<Datatype>\w+)")


def of_engine(library: Library, engine: Any) -> JsonDict:
    """The inspector's JSON of a loaded engine, with its ``source``. Layers are names alone if it is not detailed."""
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(library.member("LayerInformationFormat", "JSON"))
    found: JsonDict = json.loads(text, strict=False)  # layer metadata is separated by control characters
    return {"source": "inspector", "Layers": [], **found}


def of_listing(listing: str) -> JsonDict:
    """The builder's listing of the layers in the inspector's form."""
    layers = []
    for match in _LINE.finditer(listing.removeprefix("Layers:\n")):
        layer: JsonDict = dict(match.groupdict(default=""))
        for side in ("Inputs", "Constants", "Outputs"):
            layer[side] = [tensor.groupdict() for tensor in _TENSOR.finditer(str(layer[side]))]
        layers.append(layer)
    return {"source": "builder", "Layers": layers}


def of_network(network: Any) -> JsonDict:
    """The layers of a parsed network in the inspector's form: what a strongly typed engine has to compute in.

    It is the evidence where ``profiling_verbosity`` leaves an engine nothing to tell.
    """
    layers = []
    for layer in (network.get_layer(number) for number in range(network.num_layers)):
        inputs = [layer.get_input(number) for number in range(layer.num_inputs)]
        types = [{"Datatype": item.dtype.name} for item in inputs if item is not None]
        layers.append({"Name": layer.name, "LayerType": layer.type.name, "Inputs": types})
    return {"source": "network", "Layers": layers}


def precision(information: JsonDict) -> dict[str, int]:
    """{type: layers} over the layers that carry the arithmetic; over all layers where none of them does.

    A layer's type is the narrowest floating or quantised type among its inputs: a quantised product may well
    add a float32 bias.
    """
    layers = [layer for layer in information["Layers"] if isinstance(layer, dict)]
    chosen = [layer for layer in layers if _computes(layer)] or layers
    types = Counter(filter(None, map(_type, chosen)))
    return {name: types[name] for name in _NARROWEST_FIRST if types[name]}


def best(found: Sequence[JsonDict]) -> JsonDict:
    """The first that shows a layer which carries arithmetic, else the first; one without layers if there is none.

    An inspector that shows a whole network as one opaque node tells less than the builder's listing.
    """
    telling = [one for one in found if any(isinstance(layer, dict) and _computes(layer) for layer in one["Layers"])]
    return next(iter([*telling, *found]), {"source": None, "Layers": []})


def _computes(layer: JsonDict) -> bool:
    kind, name = str(layer.get("LayerType", "")), str(layer.get("Name", ""))
    return bool(_COMPUTE_TYPE.search(kind) or _COMPUTE_NAME.search(name))


def _type(layer: JsonDict) -> str | None:
    found = {_tensor_type(tensor) for tensor in layer.get("Inputs", [])}
    return next((name for name in _NARROWEST_FIRST if name in found), None)


def _tensor_type(tensor: JsonDict) -> str | None:
    """The type of one tensor; older versions say it inside the description of the format."""
    text = next(
        (str(tensor[key]) for key in ("Datatype", "DataType", "Format/Datatype", "Format") if key in tensor), ""
    )
    return next((_WORDS[word] for word in re.split(r"[^a-z0-9]+", text.lower()) if word in _WORDS), None)


def mismatch(variant: Variant, realised: JsonDict) -> str | None:
    """How what was loaded differs from what was asked, in one line; None if it does not."""
    if realised["contexts"] != variant.session.streams:
        return f"asked for {variant.session.streams} streams, found {realised['contexts']} contexts"
    if realised["cuda_graph"] != variant.session.cuda_graph:
        return f"asked for cuda_graph={variant.session.cuda_graph}, but the session ran with {realised['cuda_graph']}"
    return _precision_mismatch(variant.onnx.precision.dtype, variant.onnx.precision.rest, realised["precision"])


def _precision_mismatch(asked: str, rest: str | None, ran: dict[str, int]) -> str | None:
    if not ran:
        return f"asked for {asked}, but nothing tells which types the engine computes in"
    if asked in {"fp32", "tf32"}:
        return f"asked for {asked}, but the engine computes in {ran}" if set(ran) - {"fp32"} else None
    if not ran.get(asked):
        return f"asked for {asked}, but no layer of the engine computes in it: {ran}"
    others = set(ran) - {
        asked,
        rest,
        "fp32",
    }  # fp32: what the recipe kept, and what the library has no other kernel for
    return f"asked for {asked} beside {rest or 'fp32'}, but the engine computes in {ran}" if others else None
