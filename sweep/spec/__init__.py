"""The axes of a sweep. The class in which an axis lives is the stage that it invalidates.

``OnnxAxes`` change the graph, ``EngineAxes`` the engine built from it, ``SessionAxes`` how the engine
is held, ``LoadAxes`` how it is driven; each has a module here. Keys are hashes of those projections, so streams, MPS
shares and load never rebuild an engine. An axis left at None is the library's default and stays out of
the key. To add an axis: a field in its class (with its metadata), and its name in the ``honours`` of the
backends that act on it.
"""

from sweep.spec.axes import Axis, all_axes, by_place, from_record, keyed
from sweep.spec.base import NOT_IN_KEY, JsonDict
from sweep.spec.compare import Comparison, compare
from sweep.spec.engine import EngineAxes, Plugin, Profile
from sweep.spec.keys import both_keys, digest, engine_key, flat, onnx_key, projection, variant_key
from sweep.spec.load import LabelledData, LoadAxes
from sweep.spec.onnx import CalibrationData, ExportInput, GraphPass, InputFix, ModelRef, OnnxAxes, Precision
from sweep.spec.session import Script, SessionAxes
from sweep.spec.variant import Variant

__all__ = [
    "NOT_IN_KEY",
    "Axis",
    "CalibrationData",
    "Comparison",
    "EngineAxes",
    "ExportInput",
    "GraphPass",
    "InputFix",
    "JsonDict",
    "LabelledData",
    "LoadAxes",
    "ModelRef",
    "OnnxAxes",
    "Plugin",
    "Precision",
    "Profile",
    "Script",
    "SessionAxes",
    "Variant",
    "all_axes",
    "both_keys",
    "by_place",
    "compare",
    "digest",
    "engine_key",
    "flat",
    "from_record",
    "keyed",
    "onnx_key",
    "projection",
    "variant_key",
]
