"""Make the axes of a plan that was built elsewhere from `model.engine`, and refuse what only a build can set."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweep import spec
from sweep.backends import registry
from sweep.backends.tensorrt import plan_file
from sweep.errors import ConfigError
from sweep.spec import EngineAxes, ModelRef, Precision

if TYPE_CHECKING:
    from sweep.config.schema import Config
    from sweep.spec import BuiltPlan, InputFix

AS_BUILT = Precision(name="as-built", dtype="native")
"""Stand for the types of a plan, which nothing but the plan decides."""

_DEFAULT = Precision(name="fp32", dtype="fp32")  # of the command line, where no precision is typed
_KEPT = ("batch", "plan", "plugins")  # engine axes that loading a plan needs too


def read(path: str | None) -> BuiltPlan | None:
    """Return the plan that `model.engine` names, or None for none; each file is read once per process.

    Raises:
        ModelError: it is no plan, or cannot be read; one line.
    """
    return None if path is None else _read(Path(path).expanduser().absolute())


@cache
def _read(path: Path) -> BuiltPlan:
    return plan_file.read(path)


def resolve_backend(name: str, path: str | None) -> tuple[str, str | None]:
    """Return the backend that `name` stands for, and the reason where it is ``auto``: for a plan, who built it.

    Args:
        name: of a backend, or ``auto``.
        path: `model.engine`.

    Raises:
        ConfigError: there is no such backend.
    """
    plan = read(path)
    if plan is None or name != "auto":
        return registry.resolve(name)
    return plan.library, f"{plan} is a plan of {plan.built_by}"


def has_reference(config: Config) -> bool:
    """Tell whether a network is named beside the plan (`sweep.config.compose` empties a name that nobody gave)."""
    model = config.model
    return any((model.name, model.path, model.torch, model.saved_model))


def model_alone(config: Config, plan: BuiltPlan, inputs: tuple[InputFix, ...]) -> ModelRef:
    """Return what stands for the network of a plan without a reference: its name, and what the user says of its inputs.

    Raises:
        ConfigError: a key needs the network itself.
    """
    for key in ("labels", "scores", "batch_dim"):
        value = getattr(config.model, key)
        if value is not None:
            raise ConfigError(
                f"model.{key}={value}: model.engine={plan} came without its network; give model.path= too, "
                "the ONNX file that it was built from"
            )
    return ModelRef(name=Path(plan.path).stem, inputs=inputs)


def refuse_build_settings(config: Config, engine: EngineAxes, precision: Precision) -> None:
    """Refuse settings that decide how an engine is built.

    Raises:
        ConfigError: one is set beside `model.engine`.
    """
    axes = {axis.path: axis for axis in spec.all_axes()}
    built = f"and {engine.plan} is built already"
    if precision != _DEFAULT:
        raise ConfigError(
            f"precision={precision.name}: the types are those of model.engine, {built}; leave precision out, "
            f"or leave model.engine out to build {precision.name}"
        )
    for item in dataclasses.fields(engine):
        value = getattr(engine, item.name)
        if item.name not in _KEPT and value != item.default:
            axis = axes["engine", item.name]
            ((key, typed), *_) = axis.overrides(value).items()
            raise ConfigError(f"{key}={spec.plain_text(typed)}: decides a build, {built}; leave it or model.engine out")
    for key, value, default in (
        ("graph", config.graph, "none"),
        ("model.calibration", config.model.calibration, None),
        ("build_only", config.build_only, False),
        ("builds", config.builds, None),
    ):
        if value != default:
            raise ConfigError(f"{key}={spec.plain_text(value)}: decides a build, {built}; leave it or model.engine out")
