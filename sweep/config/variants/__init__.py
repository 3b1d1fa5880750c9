"""Turn composed configs into variants and settings; every value is checked before anything runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sweep import models
from sweep.backends import registry
from sweep.config.settings import conditions, settings, slo, slug
from sweep.config.variants import built_plan
from sweep.config.variants.built_plan import resolve_backend
from sweep.config.variants.engine import engine_axes
from sweep.config.variants.labels import labelled_data, refuse_gates_on_a_score, refuse_unscored
from sweep.config.variants.load import load_axes
from sweep.config.variants.model import check_batch, input_fixes, model_ref
from sweep.config.variants.pipeline import model_of, pipeline_axis
from sweep.config.variants.precision import calibration_data, graph_pass, recipe
from sweep.config.variants.samples import refuse_without_network, sample_data
from sweep.config.variants.session import session_axes
from sweep.config.variants.shapes import model_shape, request_shapes, shape_profiles
from sweep.config.variants.stage_cache import StageCache
from sweep.errors import ConfigError
from sweep.spec import PER_ENGINE, OnnxAxes, Variant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sweep.config.schema import Config
    from sweep.spec import (
        BuiltPlan,
        EngineAxes,
        LabelledData,
        LoadAxes,
        ModelRef,
        Pipeline,
        SampleData,
        SessionAxes,
    )

__all__ = ["conditions", "from_config", "from_configs", "resolve_backend", "settings", "slo", "slug"]


def from_config(config: Config) -> Variant:
    """Return the variant that one composed config describes; reads the files that it names.

    Raises:
        ConfigError: a value is out of its range, or two contradict each other; one line.
        ModelError: the model cannot be used as requested; one line.
    """
    return next(from_configs((config,)))


def from_configs(configs: Iterable[Config]) -> Iterator[Variant]:
    """Yield the variant of each config; what several have in common is checked and made once, and is one object.

    Raises:
        ConfigError: a value is out of its range, or two contradict each other; one line.
        ModelError: the model cannot be used as requested; one line.
    """
    return map(_Maker().variant, configs)


class _Network(NamedTuple):
    """Hold the backend, the graph, and what its outputs are scored on.

    Attributes:
        backend: name.
        onnx: axes of the graph.
        data: axes of the load that name the user's samples; {} without any.
    """

    backend: str
    onnx: OnnxAxes
    data: dict[str, Any]


class _Maker:
    """Make variants of configs, each part once for the configs that agree in it."""

    def __init__(self) -> None:
        self._engine_alone: StageCache[EngineAxes] = StageCache(engine_axes)
        self._engine: StageCache[EngineAxes] = StageCache(self._make_engine)
        self._session: StageCache[SessionAxes] = StageCache(session_axes)
        self._model: StageCache[ModelRef] = StageCache(_model)
        self._batch_check: StageCache[None] = StageCache(self._check_batch)
        self._network: StageCache[_Network] = StageCache(self._make_network)
        self._load: StageCache[LoadAxes] = StageCache(self._make_load)
        self._pipeline: StageCache[Pipeline | None] = StageCache(pipeline_axis)

    def variant(self, config: Config) -> Variant:
        """Return the variant of `config`."""
        engine, session, pipeline = self._engine(config), self._session(config), self._pipeline(config)
        if engine.plan is None and pipeline is None:
            self._batch_check(config)
        network = self._network(config)
        return Variant(
            backend=network.backend,
            onnx=network.onnx,
            engine=engine,
            session=session,
            load=self._load(config),
            pipeline=pipeline,
        )

    def _make_engine(self, config: Config) -> EngineAxes:
        """Return the engine axes, with the profiles over the shapes of the load where one engine serves them."""
        engine = self._engine_alone(config)
        if config.profiles == PER_ENGINE:
            return engine
        return dataclasses.replace(engine, profiles=shape_profiles(config, self._load(config)))

    def _check_batch(self, config: Config) -> None:
        """Refuse a batch or a profile that the model does not have."""
        registry.resolve(config.backend.name)
        model = self._model(config)
        check_batch(model, config.batch)
        if config.profile == "range" and all(spec.batch_axis is None for spec in models.signature(model).inputs):
            raise ConfigError(f"profile=range: model {model.name} has no batch axis, so its engine takes one shape")

    def _make_network(self, config: Config) -> _Network:
        pipeline = self._pipeline(config) if config.pipeline else None
        if pipeline is not None:
            backend, _ = registry.resolve(config.backend.name)
            onnx = OnnxAxes(model=model_of(pipeline), precision=recipe(config), graph=graph_pass(config.graph))
            return _Network(backend, onnx, {})
        if config.model.engine is not None:
            return self._network_of_plan(config)
        backend, _ = registry.resolve(config.backend.name)
        model = self._model(config)
        precision = recipe(config, model)
        labels = labelled_data(config.model, model)
        refuse_unscored(config.accuracy, labels, model)
        samples = sample_data(config.model, model)
        onnx = OnnxAxes(
            model=model,
            precision=precision,
            calibration=calibration_data(config.model.calibration, samples, model, precision),
            prune="2:4" if config.backend.sparsity == "force" else None,
            graph=graph_pass(config.graph),
        )
        return _Network(backend, onnx, _data(labels, samples))

    def _network_of_plan(self, config: Config) -> _Network:
        """Return the network of a plan that was built elsewhere; one that is named beside it is its reference."""
        engine = self._engine(config)
        plan = cast("BuiltPlan", engine.plan)
        backend, _ = resolve_backend(config.backend.name, config.model.engine)
        built_plan.refuse_build_settings(config, engine, recipe(config))
        labels, samples = None, None
        if built_plan.has_reference(config):
            model = self._model(config)
            check_batch(model, config.batch)
            labels = labelled_data(config.model, model)
            refuse_unscored(config.accuracy, labels, model)
            samples = sample_data(config.model, model)
        else:
            model = built_plan.model_alone(config, plan, input_fixes(config.model))
            refuse_gates_on_a_score(config.accuracy, str(plan))
            refuse_without_network(config.model, str(plan))
        return _Network(backend, OnnxAxes(model=model, precision=built_plan.AS_BUILT), _data(labels, samples))

    def _make_load(self, config: Config) -> LoadAxes:
        load, model, shapes = load_axes(config), config.model, request_shapes(config.load)
        if shapes is not None:
            model_shape(config)  # refuses what shapes of their own exclude
            return dataclasses.replace(load, **shapes.axes(self._model(config)))
        if model.labels is None and model.samples is None:  # else the axes depend on all that the network depends on
            return load
        return dataclasses.replace(load, **self._network(config).data)


def _model(config: Config) -> ModelRef:
    model = model_ref(config.model, Path(config.results).resolve() / "cache", model_shape(config))
    if config.profiles == PER_ENGINE or config.load.shapes is None:
        return model
    opened = dataclasses.replace(model, open_dimensions=tuple(item.name for item in model.shape or ()))
    models.graph_inputs(opened)  # refuses a dimension that cannot be open
    return opened


def _data(labels: LabelledData | None, samples: SampleData | None) -> dict[str, Any]:
    return {"labels": labels, "samples": samples}
