"""The axes of a sweep. The class in which an axis lives is the stage that it invalidates.

``OnnxAxes`` change the graph, ``EngineAxes`` the engine built from it, ``SessionAxes`` how the engine
is held, ``LoadAxes`` how it is driven; each has a module here. Keys are hashes of those projections, so streams, MPS
shares and load never rebuild an engine. An axis left at None is the library's default and stays out of
the key. To add an axis: a field in its class (with its metadata), and its name in the ``honours`` of the
backends that act on it.
"""

from sweep.spec.base import NOT_IN_KEY, JsonDict
from sweep.spec.engine import EngineAxes, Plugin, Profile
from sweep.spec.keys import both_keys, digest, engine_key, flat, onnx_key, projection, variant_key
from sweep.spec.load import LabelledData, LoadAxes
from sweep.spec.onnx import CalibrationData, GraphPass, InputFix, ModelRef, OnnxAxes, Precision
from sweep.spec.session import Script, SessionAxes
from sweep.spec.variant import Variant

__all__ = [
    "NOT_IN_KEY",
    "CalibrationData",
    "EngineAxes",
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
    "both_keys",
    "digest",
    "engine_key",
    "flat",
    "onnx_key",
    "projection",
    "variant_key",
]
