"""Locate the typed ONNX and the engine of a record, and tell how to make them again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import precision as typed_onnx
from sweep import spec
from sweep.backends.tensorrt import PLAN
from sweep.errors import ModelError
from sweep.models import override, render_shape, sibling_ref
from sweep.runner.worker import artifact_keys, model_files
from sweep.spec import ModelRef, Precision, keyed, plain_text, quote
from sweep.system import command_line, from_plain

if TYPE_CHECKING:
    from sweep.spec import JsonDict
    from sweep.storage import Record

_RECIPE = ("precision.path", "precision.keep", "precision.search")
_TOP = ("batch", "streams", "cuda_graph", "transfers")
_BACKEND = (
    *("builder_optimization_level", "max_aux_streams", "tiling", "sparsity", "workspace_mib", "wait"),
    *("timing_cache", "profiling_verbosity", "version_compatible", "hardware_compatibility", "refit"),
    *("weight_streaming", "weight_streaming_budget_mib", "tactic_sources", "max_tactics", "tiling_l2_limit_kib"),
    *("preview_features", "build_route", "io_format", "context_memory", "persistent_cache_ratio"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Hold the paths that the command names, whether the files exist or not.

    Attributes:
        onnx: the typed ONNX; None for a plan that was built elsewhere.
        engine: the engine that was timed; None if the record ended before one was built.
        advice: the command line that fills the cache again.
    """

    onnx: Path | None
    engine: Path | None
    advice: str

    @property
    def has_onnx(self) -> bool:
        """Return whether the typed ONNX exists."""
        return self.onnx is not None and self.onnx.is_file()

    @property
    def has_engine(self) -> bool:
        """Return whether the engine exists."""
        return self.engine is not None and self.engine.is_file()


def find(record: Record, path: Path, cache: Path | None) -> Files:
    """Return the files of `record`.

    Args:
        record: as read from `path`.
        path: ``<results>/<sweep>/records/<key>.json``; the cache is beside the sweep.
        cache: another cache folder; None takes ``<results>/cache``.
    """
    sweep = path.resolve().parent.parent
    root = cache or sweep.parent / "cache"
    engine = record.engine or {}
    plan = root / "engines" / engine["key"] / PLAN if engine.get("key") else None
    imported = record.variant.get("plan")
    if imported:  # the copy may have been evicted, or never been made
        own = Path(imported["path"])
        return Files(onnx=None, engine=plan if plan and plan.is_file() else own, advice=_advice(record, root.parent))
    return Files(onnx=_onnx(record, root), engine=plan, advice=_advice(record, root.parent))


def model(record: Record) -> ModelRef:
    """Return the reference to the record's network."""
    return from_plain(ModelRef, record.variant["model_ref"])


def _onnx(record: Record, root: Path) -> Path:
    precision = from_plain(Precision, record.variant["precision_recipe"])
    ref = model(record)
    if precision.path is not None and typed_onnx.passes_through(precision):
        try:
            ref = sibling_ref(ref, precision.path, record.variant["batch"])
        except ModelError:  # one of the files is gone
            return Path(precision.path)
    if not typed_onnx.passes_through(precision):
        return root / "onnx" / str((record.engine or {}).get("onnx_key")) / model_files.MODEL_FILE
    graph_pass = (record.engine or {}).get("graph_pass")
    if graph_pass:
        return root / "models" / str(graph_pass["key"]) / model_files.MODEL_FILE
    if ref.path is not None:
        try:
            key = artifact_keys.normal_form_key(ref)
        except ModelError:  # the file is gone
            key = None
        return Path(ref.path) if key is None else root / "models" / key / model_files.MODEL_FILE
    return root / "models" / artifact_keys.model_key(ref) / model_files.MODEL_FILE


def _advice(record: Record, results: Path) -> str:
    """Return the command that measures this variant under another sweep name, so that no record changes."""
    variant, ref, imported = record.variant, model(record), record.variant.get("plan")
    alone = imported and ref.path is None and ref.revision is None
    words = [
        f"backend={variant['backend']}",
        *([f"model.engine={quote(imported['path'])}"] if imported else [f"precision={variant['precision']}"]),
        *([] if alone else [f"model.path={quote(ref.path)}" if ref.path else f"model={ref.name}"]),
        *([] if imported else _recipe_words(from_plain(Precision, variant["precision_recipe"]))),
        *([f"graph={variant['graph']}"] if variant.get("graph") else []),
        *_data_words(record),
        *(override(fix.name, "shape", render_shape(fix.shape)) for fix in ref.inputs if fix.shape is not None),
        *([] if ref.batch_dim is None else [f"+model.batch_dim={quote(ref.batch_dim)}"]),
        *(_word(axis, variant[axis]) for axis in _TOP if variant.get(axis) is not None),
        *(_word(f"backend.{axis}", variant[axis]) for axis in _BACKEND if variant.get(axis) is not None),
        *_profile_words(variant.get("profile")),
    ]
    return command_line.format_command(*words, "load=closed", f"results={quote(str(results))}", "name=files")


def _recipe_words(precision: Precision) -> list[str]:
    """Return the overrides of what a recipe does not hold by its name: a file, nodes to keep, a search for them."""
    words = []
    for key in _RECIPE:
        axis = keyed()[key]
        value = getattr(precision, axis.name)
        if value is not None:
            words += [f"{name}={_text(item)}" for name, item in axis.overrides(value).items()]
    return words


def _text(value: Any) -> str:
    """Return a value in Hydra's grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return quote(value) if isinstance(value, str) else plain_text(value)


def _data_words(record: Record) -> list[str]:
    """Return the words that name the user's own data from which the typed ONNX is made."""
    axes, variant = spec.keyed(), spec.from_record(record.variant)
    settings = [axes[key].overrides(axes[key].read(variant)) for key in ("model.calibration", "model.samples")]
    return [f"{key}={quote(value)}" for each in settings for key, value in each.items() if value is not None]


def _word(key: str, value: Any) -> str:
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def _profile_words(profile: JsonDict | None) -> list[str]:
    if profile is None:
        return []
    return ["profile=range", *(f"range.{name}={value}" for name, value in profile.items())]
