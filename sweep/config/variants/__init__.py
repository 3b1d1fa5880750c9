"""Turn composed configs into variants and settings; every value is checked before anything runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from sweep import models
from sweep.backends import registry
from sweep.config.settings import conditions, settings, slo, slug
from sweep.config.variants import built_plan
from sweep.config.variants.built_plan import resolve_backend
from sweep.config.variants.engine import engine_axes
from sweep.config.variants.labels import labelled_data, refuse_gates_on_a_score, refuse_unscored
from sweep.config.variants.load import load_axes
from sweep.config.variants.model import check_batch, input_fixes, model_ref
from sweep.config.variants.precision import calibration_data, graph_pass, recipe
from sweep.config.variants.samples import refuse_without_network, sample_data
from sweep.config.variants.session import session_axes
from sweep.errors import ConfigError
from sweep.spec import OnnxAxes, Variant

if TYPE_CHECKING:
    from sweep.config.schema import Config
    from sweep.spec import BuiltPlan, EngineAxes, SessionAxes

__all__ = ["conditions", "from_config", "resolve_backend", "settings", "slo", "slug"]


def from_config(config: Config) -> Variant:
    """Return the variant that one composed config describes; reads the files that it names.

    Raises:
        ConfigError: a value is out of its range, or two contradict each other; one line.
        ModelError: the model cannot be used as requested; one line.
    """
    engine, session = engine_axes(config), session_axes(config)
    if engine.plan is not None:
        return _of_plan(config, engine, engine.plan, session)
    backend, _ = registry.resolve(config.backend.name)
    model = model_ref(config.model, Path(config.results).resolve() / "cache")
    check_batch(model, config.batch)
    if config.profile == "range" and all(spec.batch_axis is None for spec in models.signature(model).inputs):
        raise ConfigError(f"profile=range: model {model.name} has no batch axis, so its engine takes one shape")
    precision = recipe(config, model)
    labels = labelled_data(config.model, model)
    refuse_unscored(config.accuracy, labels, model)
    samples = sample_data(config.model, model)
    return Variant(
        backend=backend,
        onnx=OnnxAxes(
            model=model,
            precision=precision,
            calibration=calibration_data(config.model.calibration, samples, model, precision),
            prune="2:4" if config.backend.sparsity == "force" else None,
            graph=graph_pass(config.graph),
        ),
        engine=engine,
        session=session,
        load=dataclasses.replace(load_axes(config), labels=labels, samples=samples),
    )


def _of_plan(config: Config, engine: EngineAxes, plan: BuiltPlan, session: SessionAxes) -> Variant:
    """Return the variant of a plan that was built elsewhere; a network beside it is its reference."""
    backend, _ = resolve_backend(config.backend.name, config.model.engine)
    built_plan.refuse_build_settings(config, engine, recipe(config))
    labels, samples = None, None
    if built_plan.has_reference(config):
        model = model_ref(config.model, Path(config.results).resolve() / "cache")
        check_batch(model, config.batch)
        labels = labelled_data(config.model, model)
        refuse_unscored(config.accuracy, labels, model)
        samples = sample_data(config.model, model)
    else:
        model = built_plan.model_alone(config, plan, input_fixes(config.model))
        refuse_gates_on_a_score(config.accuracy, str(plan))
        refuse_without_network(config.model, str(plan))
    return Variant(
        backend=backend,
        onnx=OnnxAxes(model=model, precision=built_plan.AS_BUILT),
        engine=engine,
        session=session,
        load=dataclasses.replace(load_axes(config), labels=labels, samples=samples),
    )
