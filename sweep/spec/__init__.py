"""Declare the axes of a sweep. The class in which an axis is declared is the stage that it invalidates.

`OnnxAxes` change the graph, `EngineAxes` the engine that is built from it, `SessionAxes` how the engine is loaded,
`LoadAxes` how it is driven; each has a module here. Keys are hashes of these classes, so that a change of streams, MPS
shares or load never rebuilds an engine. An axis left at None is the library's default and stays out of the key.
docs/architecture.md says how to add an axis.
"""

from sweep.spec.axes import Axis, all_axes, by_place, from_record, keyed
from sweep.spec.axis import TrtexecFlag, plain_text
from sweep.spec.base import NOT_IN_KEY, JsonDict
from sweep.spec.compare import Comparison, compare
from sweep.spec.engine import BuiltPlan, EngineAxes, Plugin, Profile
from sweep.spec.gates import Gates, Limits
from sweep.spec.input_names import is_plain_key, quote, table_key
from sweep.spec.keys import KeyMaker, digest, engine_key, flat, onnx_key, projection, variant_key
from sweep.spec.load import LabelledData, LoadAxes, SampleData
from sweep.spec.network_inputs import Dimension, ExportInput, InputFix, shape_text
from sweep.spec.onnx import (
    SEARCH_EVALUATIONS,
    CalibrationData,
    GraphPass,
    ModelRef,
    NodeSearch,
    OnnxAxes,
    Precision,
)
from sweep.spec.outcome import DriftVerdict, SloVerdict, Status, Verdict
from sweep.spec.pipeline import Link, Pipeline, Stage, settings_by_key
from sweep.spec.session import Neighbour, Script, SessionAxes
from sweep.spec.settings import RETRIED, SEARCH_OBJECTIVES, GridSearch, Settings, Tracking
from sweep.spec.shape_distribution import DISTRIBUTIONS, ShapeDistribution
from sweep.spec.shape_mix import Shape, ShapeMix, ShapeShare, by_size, elements, engine_of, engine_shapes
from sweep.spec.shape_profiles import PER_ENGINE, PER_SHAPE, RANGE, WAYS, ShapeProfiles
from sweep.spec.sharing import Sharing, parse_sharing
from sweep.spec.side_by_side import alone, member, members_of, with_share
from sweep.spec.slo import PERCENTILES, PercentileName, Slo, of_percent
from sweep.spec.variant import Variant

__all__ = [
    "DISTRIBUTIONS",
    "NOT_IN_KEY",
    "PERCENTILES",
    "PER_ENGINE",
    "PER_SHAPE",
    "RANGE",
    "RETRIED",
    "SEARCH_EVALUATIONS",
    "SEARCH_OBJECTIVES",
    "WAYS",
    "Axis",
    "BuiltPlan",
    "CalibrationData",
    "Comparison",
    "Dimension",
    "DriftVerdict",
    "EngineAxes",
    "ExportInput",
    "Gates",
    "GraphPass",
    "GridSearch",
    "InputFix",
    "JsonDict",
    "KeyMaker",
    "LabelledData",
    "Limits",
    "Link",
    "LoadAxes",
    "ModelRef",
    "Neighbour",
    "NodeSearch",
    "OnnxAxes",
    "PercentileName",
    "Pipeline",
    "Plugin",
    "Precision",
    "Profile",
    "SampleData",
    "Script",
    "SessionAxes",
    "Settings",
    "Shape",
    "ShapeDistribution",
    "ShapeMix",
    "ShapeProfiles",
    "ShapeShare",
    "Sharing",
    "Slo",
    "SloVerdict",
    "Stage",
    "Status",
    "Tracking",
    "TrtexecFlag",
    "Variant",
    "Verdict",
    "all_axes",
    "alone",
    "by_place",
    "by_size",
    "checks",
    "compare",
    "digest",
    "elements",
    "engine_key",
    "engine_of",
    "engine_shapes",
    "flat",
    "from_record",
    "is_plain_key",
    "keyed",
    "member",
    "members_of",
    "of_percent",
    "onnx_key",
    "outcome",
    "parse_sharing",
    "plain_text",
    "projection",
    "quote",
    "settings_by_key",
    "shape_text",
    "slo",
    "table_key",
    "variant_key",
    "with_share",
]
