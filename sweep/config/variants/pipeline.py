"""Make the stages of a pipeline from `pipeline`: a name of conf/pipeline/, a YAML file, or the stages themselves."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sweep import models
from sweep.backends import HOST_STEPS
from sweep.config import yaml_errors, yaml_limits
from sweep.config.conf_files import choices, conf_folder
from sweep.config.schema import PrecisionConfig
from sweep.config.variants.model import check_batch, resolve
from sweep.config.variants.precision import recipe
from sweep.errors import ConfigError
from sweep.spec import Link, ModelRef, Pipeline, Stage, plain_text
from sweep.system import regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sweep.config.schema import Config

_FOLDER, _SUFFIXES = "pipeline", (".yaml", ".yml")
_OWN_KEYS = ("name", "stages", "outputs", "overlap")
_NETWORK_KEYS = ("precision", "batch", "cuda_graph", "streams")
_STAGE_KEYS = ("model", "path", "host", "inputs", "outputs", *_NETWORK_KEYS, "rows", "most_rows", "service_us")
_MOST_RUNS = 10_000  # of all stages in one request
_REFUSED = (  # what belongs to one network, and has no meaning for several
    *("samples", "labels", "calibration", "engine", "torch", "saved_model", "path"),
)
_FLOAT = "float32"
_EXAMPLE = "pipeline=[text_encoder,{unet:50},vae]"


class _StageConfig:
    """Stand in for a config whose precision is that of a stage."""

    def __init__(self, config: Config, precision: PrecisionConfig, batch: int) -> None:
        self._config, self.precision, self.batch = config, precision, batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)


def pipeline_axis(config: Config) -> Pipeline | None:
    """Return the pipeline; None where one network serves the requests.

    Raises:
        ConfigError: a name, a count or a tensor is not known, or does not fit; one line.
        ModelError: the network of a stage cannot be read; one line.
    """
    requested = config.pipeline
    if not requested:
        return None
    if not isinstance(requested, dict):
        raise ConfigError(f"pipeline={plain_text(requested)}: give a name, a file or a list, as in {_EXAMPLE}")
    _refuse_axes_of_one_network(config)
    name, table = _table(requested)
    stages = tuple(_stages(config, table))
    outputs = table.get("outputs") or [link.tensor for link in stages[-1].outputs]
    written = {link.tensor for stage in stages for link in stage.outputs}
    if not isinstance(outputs, list) or not set(map(str, outputs)) <= written:
        raise ConfigError(
            f"pipeline.outputs={plain_text(outputs)}: give a list of tensors that a stage writes: "
            f"{', '.join(sorted(written))}"
        )
    overlap = table.get("overlap")
    if overlap not in (None, True, False):
        raise ConfigError(f"pipeline.overlap={plain_text(overlap)}: true or false")
    several = next((stage for stage in stages if stage.streams is not None and not overlap), None)
    if several is not None:
        raise ConfigError(
            f"pipeline.{several.name}.streams={several.streams}: needs pipeline.overlap=true; without it each stream "
            "runs its stages on the stream alone"
        )
    pipeline = Pipeline(
        name=name,
        stages=stages,
        outputs=tuple(map(str, outputs)),
        overlap=overlap,
        request=json.dumps(requested, sort_keys=True),
    )
    runs = sum(stage.count for stage in stages)
    if runs > _MOST_RUNS:
        raise ConfigError(f"pipeline={name}: a request runs {runs} stages; at most {_MOST_RUNS}")
    return pipeline


def model_of(pipeline: Pipeline) -> ModelRef:
    """Return what stands in place of the network: the name of the pipeline."""
    return ModelRef(name=pipeline.name)


def _refuse_axes_of_one_network(config: Config) -> None:
    refused = [f"model.{name}" for name in _REFUSED if getattr(config.model, name) is not None]
    refused += ["model.inputs"] if config.model.inputs else []
    refused += ["shape"] if config.shape is not None else []
    refused += ["load.shapes"] if config.load.shapes is not None else []
    refused += ["batching.max_wait_ms"] if config.batching.max_wait_ms is not None else []
    refused += ["profile"] if config.profile != "static" else []
    refused += ["layers"] if config.layers else []
    refused += ["beside"] if config.beside is not None else []
    refused += ["precision.path"] if config.precision.path is not None else []
    if refused:
        raise ConfigError(f"{refused[0]}: belongs to one network, and pipeline= has several; leave one of them out")


def _table(requested: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of the pipeline, and its table: that of the file that is named, with what is set beside it."""
    name, own = requested.get("name"), {key: value for key, value in requested.items() if key != "name"}
    if name is None:
        return "pipeline", own
    name = str(name)
    if name.endswith(_SUFFIXES):
        base, title = _read(Path(name).expanduser()), Path(name).stem
    elif name in choices(_FOLDER):
        base, title = _read(conf_folder() / _FOLDER / f"{name}.yaml"), name
    elif "stages" in own:
        return name, own
    else:
        known = ", ".join(choices(_FOLDER))
        raise ConfigError(f"pipeline={name}: no such pipeline; there are: {known}, or your own FILE.yaml or {_EXAMPLE}")
    merged = {**base, **own}
    for key, value in own.items():
        if isinstance(base.get(key), dict) and isinstance(value, dict):
            merged[key] = {**base[key], **value}
    return str(base.get("name", title)), {key: value for key, value in merged.items() if key != "name"}


def _read(path: Path) -> dict[str, Any]:
    """Return the table of a YAML file.

    Raises:
        ConfigError: it cannot be read, or holds no table.
    """
    yaml_limits.check_file(path)
    try:
        table = yaml.safe_load(regular_files.read_text(path, follow=True))
    except yaml_errors.ERRORS as error:
        raise ConfigError(yaml_errors.describe(path, error)) from error
    if not isinstance(table, dict):
        raise ConfigError(f"pipeline={path}: give a table with a list of stages, as in stages: [a, {{b: 50}}, c]")
    return {str(key): value for key, value in table.items()}


def _stages(config: Config, table: Mapping[str, Any]) -> Iterator[Stage]:
    """Yield the stages of a table, with every name, count and tensor checked."""
    places = list(_places(table.get("stages")))
    names = [name for name, _, _ in places]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"pipeline: stage {twice} stands twice; give the second a name of its own, with its model")
    unknown = next((key for key in table if key not in {*_OWN_KEYS, *names}), None)
    if unknown is not None:
        raise ConfigError(f"pipeline.{unknown}: no such stage; there are: {', '.join(names)}")
    stages = [_stage(config, name, table.get(name), loop, count) for name, loop, count in places]
    kinds: dict[str, str | None] = {}
    for number, stage in enumerate(stages):
        _check_inputs(stages, number, kinds, table.get(stage.name) or {})
        yield stage


def _places(value: object) -> Iterator[tuple[str, int | None, int]]:
    """Yield name, number of the loop and count of each entry of a list of stages."""
    if not isinstance(value, list) or not value:
        raise ConfigError(f"pipeline.stages={plain_text(value)}: give a list of stages, as in {_EXAMPLE}")
    for number, entry in enumerate(value):
        if isinstance(entry, str):
            yield entry, None, 1
        elif isinstance(entry, dict) and set(entry) == {"loop", "stages"} and isinstance(entry["stages"], list):
            count = _count(f"pipeline: loop={plain_text(entry['loop'])}", entry["loop"])
            if not entry["stages"] or not all(isinstance(name, str) for name in entry["stages"]):
                raise ConfigError(f"pipeline: loop={count}: give the names of its stages, as in [unet,ddim_step]")
            yield from ((name, number, count) for name in entry["stages"])
        elif isinstance(entry, dict) and len(entry) == 1:
            ((name, count),) = entry.items()
            yield str(name), number, _count(f"pipeline: {name}={plain_text(count)}", count)
        else:
            raise ConfigError(
                f"pipeline.stages: {plain_text(entry)} is no stage; give a name, {{NAME: COUNT}} or "
                "{loop: COUNT, stages: [NAME, NAME]}"
            )


def _count(head: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_RUNS:
        raise ConfigError(f"{head}: a loop runs 1 to {_MOST_RUNS} times")
    return value


def _stage(config: Config, name: str, table: object, loop: int | None, count: int) -> Stage:
    """Return one stage, its own settings checked."""
    own = {} if table is None else table
    key = f"pipeline.{name}"
    if not isinstance(own, dict):
        raise ConfigError(f"{key}={plain_text(own)}: give a table, as in {key}.precision=fp16")
    unknown = next((entry for entry in own if entry not in _STAGE_KEYS), None)
    if unknown is not None:
        raise ConfigError(f"{key}.{unknown}: no such key; there are: {', '.join(_STAGE_KEYS)}")
    sources = [entry for entry in ("model", "path", "host") if own.get(entry) is not None]
    if len(sources) > 1:
        raise ConfigError(f"{key}: {' and '.join(sources)}: give one of them")
    values: dict[str, Any] = {"name": name, "loop": loop, "count": count}
    for entry, least in (("batch", 1), ("streams", 1), ("most_rows", 1)):
        values[entry] = _integer(f"{key}.{entry}", own.get(entry), least)
    values["service_us"] = _positive(f"{key}.service_us", own.get("service_us"))
    host = own.get("host") or (name if not sources and name in HOST_STEPS else None)
    if host is not None:
        return _host_stage(key, str(host), own, values)
    if own.get("rows") is not None or own.get("most_rows") is not None:
        raise ConfigError(f"{key}: rows and most_rows are drawn by a host step, such as crop_boxes; leave them out")
    return _network_stage(config, key, own, values)


def _host_stage(key: str, host: str, own: Mapping[str, Any], values: dict[str, Any]) -> Stage:
    step = HOST_STEPS.get(host)
    if step is None:
        known = ", ".join(HOST_STEPS)
        raise ConfigError(f"{key}.host={host}: no such host step; there are: {known}")
    given = next((entry for entry in _NETWORK_KEYS if entry != "streams" and own.get(entry) is not None), None)
    if given is not None:
        raise ConfigError(f"{key}.{given}: {host} is a host step, which has none; leave it out")
    rows, most = _positive(f"{key}.rows", own.get("rows")), values["most_rows"]
    if rows is not None and not step.draws_rows:
        raise ConfigError(f"{key}.rows={rows:g}: {host} draws no rows; leave it out")
    if step.draws_rows and (rows is None or most is None or rows > most):
        raise ConfigError(
            f"{key}: {host} draws its rows; give rows (the mean) and most_rows, as in rows: 8, most_rows: 32"
        )
    return Stage(
        **values,
        host=host,
        rows=rows,
        inputs=_links(f"{key}.inputs", own.get("inputs"), step.inputs),
        outputs=_links(f"{key}.outputs", own.get("outputs"), step.outputs),
    )


def _network_stage(config: Config, key: str, own: Mapping[str, Any], values: dict[str, Any]) -> Stage:
    name, path = str(own.get("model") or values["name"]), own.get("path")
    if path is None and name not in models.zoo.names():
        known = ", ".join(HOST_STEPS)
        raise ConfigError(
            f"{key}: {name} is no network of conf/model and no host step ({known}); give {key}.model=NAME, "
            f"{key}.path=FILE.onnx or {key}.host=NAME"
        )
    model = resolve(name, None if path is None else str(path), (), None)
    signature = models.signature(model)
    batch = values["batch"] or config.batch
    check_batch(model, batch)
    graph = own.get("cuda_graph")
    if graph not in (None, True, False):
        raise ConfigError(f"{key}.cuda_graph={plain_text(graph)}: true or false")
    return Stage(
        **values,
        model=model,
        cuda_graph=graph,
        precision=_precision(config, key, own.get("precision"), model, batch),
        inputs=_links(f"{key}.inputs", own.get("inputs"), [item.name for item in signature.inputs]),
        outputs=_links(f"{key}.outputs", own.get("outputs"), signature.outputs),
    )


def _precision(config: Config, key: str, value: object, model: ModelRef, batch: int) -> Any:
    """Return the recipe of a stage: a name of conf/precision/, or a table with a name and what differs from it."""
    if value is None:
        return None
    own = dict(value) if isinstance(value, dict) else {"name": value}
    name = own.pop("name", None)
    if name not in choices("precision"):
        raise ConfigError(
            f"{key}.precision={plain_text(name)}: no such recipe; there are: {', '.join(choices('precision'))}"
        )
    values = {**_recipe_table(str(name)), **own}
    known = {item.name for item in dataclasses.fields(PrecisionConfig)}
    unknown = next((entry for entry in values if entry not in known), None)
    if unknown is not None or values.get("path") is not None or values.get("search"):
        raise ConfigError(f"{key}.precision: {unknown or 'path and search'} cannot be set for a stage")
    stand_in: Any = _StageConfig(config, PrecisionConfig(**values), batch)
    return recipe(stand_in, model)


@cache
def _recipe_table(name: str) -> dict[str, Any]:
    return _read(conf_folder() / "precision" / f"{name}.yaml")


def _links(key: str, table: object, ports: Any) -> tuple[Link, ...]:
    """Return the tensor of each port: that of the table, or the port's own name."""
    own = {} if table is None else table
    if not isinstance(own, dict):
        raise ConfigError(f"{key}={plain_text(own)}: give a table of names, as in {{PORT: TENSOR}}")
    unknown = next((port for port in own if port not in ports), None)
    if unknown is not None:
        raise ConfigError(f"{key}.{unknown}: no such name; there are: {', '.join(ports)}")
    return tuple(Link(port=str(port), tensor=str(own.get(port, port))) for port in ports)


def _check_inputs(stages: list[Stage], number: int, kinds: dict[str, str | None], own: Mapping[str, Any]) -> None:
    """Check that each tensor that a stage reads is written or can be drawn, and has a type that the stage takes.

    What no stage writes is drawn at random as the first network takes it that reads it.

    Args:
        stages: all of them.
        number: of the stage.
        kinds: type of each tensor by the stages before, which those of this one are added to.
        own: table of the stage.
    """
    stage = stages[number]
    before = {link.tensor for other in stages[:number] for link in other.outputs}
    before |= {
        link.tensor for other in stages if stage.loop is not None and other.loop == stage.loop for link in other.outputs
    }
    drawn = {link.tensor for other in stages if other is not stage and other.model for link in other.inputs}
    specs = {} if stage.model is None else {spec.name: spec for spec in models.signature(stage.model).inputs}
    for link in stage.inputs:
        named = stage.host is not None or link.port in (own.get("inputs") or {})
        if named and link.tensor not in before | drawn:
            raise ConfigError(
                f"pipeline.{stage.name}.inputs.{link.port}={link.tensor}: no stage before writes it; there are: "
                f"{', '.join(sorted(before)) or 'none'}"
            )
        taken, given = specs[link.port].dtype if link.port in specs else None, kinds.get(link.tensor)
        if taken is not None and given is not None and taken != given:
            raise ConfigError(
                f"pipeline.{stage.name}.inputs.{link.port}: {link.tensor} is {given}, and the network takes {taken}; "
                "map another tensor"
            )
        kinds.setdefault(link.tensor, taken)
    for link in stage.outputs:
        kinds[link.tensor] = _output_type(stage, link.port)


def _output_type(stage: Stage, port: str) -> str | None:
    """Return the element type of an output; None where it is not known. The networks of the zoo give float32."""
    if stage.model is None:
        return "int64" if stage.host == "argmax" else _FLOAT
    if stage.model.path is None:
        return _FLOAT
    known = {item.name: item.is_float for item in models.outputs(Path(stage.model.path))}
    return _FLOAT if known.get(port) else None


def _integer(key: str, value: object, least: int) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ConfigError(f"{key}={plain_text(value)}: give a whole number of {least} or more")
    return value


def _positive(key: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(f"{key}={plain_text(value)}: give a number above 0")
    return float(value)
