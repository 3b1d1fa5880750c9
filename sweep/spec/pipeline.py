"""Declare a pipeline: networks and host steps that serve one request one after the other, tensors handed by name."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping  # noqa: TC003 - get_type_hints
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweep.spec.axis import axis, plain_text
from sweep.spec.base import NOT_IN_KEY
from sweep.spec.onnx import ModelRef, Precision  # noqa: TC001 - get_type_hints

if TYPE_CHECKING:
    from collections.abc import Iterator

_SETTINGS = ("precision", "batch", "cuda_graph", "streams", "rows", "most_rows", "service_us")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Connect a port of a stage to a tensor of the pipeline.

    Attributes:
        port: name of the input or output, as the network or the host step calls it.
        tensor: name of the tensor that every stage of the pipeline knows it by.
    """

    port: str
    tensor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Describe one stage of a pipeline: a network, or a host step of the registry.

    Attributes:
        name: of the stage in tables and records.
        inputs: tensor that each input reads.
        outputs: tensor that each output writes.
        loop: number of the loop that the stage belongs to; stages that follow each other in one loop repeat together.
            None runs it once.
        count: times that it runs in a request.
        model: the network; None for a host step.
        host: name of the host step; None for a network.
        precision: recipe of the network; None takes that of the variant.
        batch: rows of one inference of the network; None takes the batch of the variant.
        cuda_graph: replay the inferences as a CUDA graph; None takes that of the variant.
        streams: requests that may be in the stage at a time, where stages overlap; None for one.
        rows: mean rows that a host step gives for each request, drawn from a Poisson distribution; None for all.
        most_rows: most rows that it gives.
        service_us: simulated: time of one run; None takes that of the script.
    """

    name: str
    inputs: tuple[Link, ...] = ()
    outputs: tuple[Link, ...] = ()
    loop: int | None = None
    count: int = 1
    model: ModelRef | None = None
    host: str | None = None
    precision: Precision | None = None
    batch: int | None = None
    cuda_graph: bool | None = None
    streams: int | None = None
    rows: float | None = None
    most_rows: int | None = None
    service_us: float | None = None

    def settings(self) -> dict[str, Any]:
        """Return what is set for this stage alone, by name, as tables show it."""
        values = {name: getattr(self, name) for name in _SETTINGS if getattr(self, name) is not None}
        if self.precision is not None:
            values["precision"] = self.precision.name
        return {**({"count": self.count} if self.loop is not None else {}), **values}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Hold the stages that serve one request.

    Attributes:
        name: of the pipeline.
        stages: in the order in which they run.
        outputs: tensors that a request gives.
        overlap: each stage serves one request at a time, whichever stream it comes from, so that the requests of
            several streams are in different stages; None runs each stream's stages on the stream alone.
        request: the table as it was requested, in JSON, from which the command line is written again.
    """

    name: str
    stages: tuple[Stage, ...]
    outputs: tuple[str, ...]
    overlap: bool | None = None
    request: str | None = field(default=None, metadata=NOT_IN_KEY)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield the number of each stage that runs in a request, in order, with the number of its run in the loop."""
        for loop, members in itertools.groupby(enumerate(self.stages), key=lambda item: item[1].loop):
            numbered = list(members)
            if loop is None:
                yield from ((number, 0) for number, _ in numbered)
            else:
                yield from ((number, run) for run in range(numbered[0][1].count) for number, _ in numbered)

    def externals(self) -> tuple[Link, ...]:
        """Return the tensors that come from outside: ``stage.port`` of the first stage that reads each.

        A tensor comes from outside if no stage before its first reader writes it.
        """
        written: set[str] = set()
        links: dict[str, str] = {}
        for stage in self.stages:
            for link in stage.inputs:
                if link.tensor not in written:
                    links.setdefault(link.tensor, f"{stage.name}.{link.port}")
            written |= {link.tensor for link in stage.outputs}
        return tuple(Link(port=port, tensor=tensor) for tensor, port in links.items())


def settings_by_key(pipeline: Pipeline) -> dict[str, Any]:
    """Return what is set for single stages and for the pipeline, by dotted key, as ``unet.precision``."""
    values: dict[str, Any] = {} if pipeline.overlap is None else {"overlap": pipeline.overlap}
    for stage in pipeline.stages:
        values |= {f"{stage.name}.{name}": value for name, value in stage.settings().items()}
    return values


def _requested(pipeline: Pipeline) -> dict[str, str]:
    """Return what was requested beside the name, by dotted key: what a file has by itself is told by its name."""
    try:
        table = json.loads(pipeline.request or "{}")
    except ValueError:  # of a damaged record
        table = {}
    texts: dict[str, str] = {}
    for key, value in table.items():
        if key == "stages" and isinstance(value, list):
            texts[key] = "+".join(map(_entry_text, value))
        elif isinstance(value, dict):
            texts |= {f"{key}.{name}": plain_text(item) for name, item in value.items() if item is not None}
        elif key != "name" and value is not None:
            texts[key] = plain_text(value)
    return texts


def _entry_text(entry: Any) -> str:
    """Return an entry of the list of stages, as ``unet:50`` or ``50(unet+ddim_step)``."""
    if not isinstance(entry, dict):
        return str(entry)
    if "loop" in entry and isinstance(entry.get("stages"), list):
        return f"{entry['loop']}({'+'.join(map(str, entry['stages']))})"
    return "+".join(f"{name}:{count}" for name, count in entry.items())


def _word(pipeline: Pipeline) -> str:
    """Return the words of the label: what was requested beside the name, as ``unet-precision-fp16``."""
    words = []
    for key, text in _requested(pipeline).items():
        words.append(text if key == "stages" else f"{key.replace('.', '-')}-{text.replace(' ', '')}")
    return " ".join(words)


def _cell(pipeline: Pipeline | None) -> str:
    if pipeline is None:
        return "null"
    return " ".join([pipeline.name, *(f"{key}={text}" for key, text in _requested(pipeline).items())])


def _overrides(pipeline: Pipeline | None) -> Mapping[str, Any]:
    return {"pipeline": {} if pipeline is None else json.loads(pipeline.request or "{}")}


def pipeline_axis() -> Any:
    """Return the field of a variant that holds its pipeline."""
    return axis(
        None,
        key="pipeline",
        help=(
            "stages that serve a request: a name of conf/pipeline/, a YAML file, or a list as in "
            "[text_encoder,{unet:50},vae]; pipeline.STAGE.precision=, batch=, cuda_graph=, streams= set one stage "
            "({}: one network)"
        ),
        cli_default={},
        hint=Any,
        word=_word,
        place=1,
        cell=_cell,
        overrides=_overrides,
    )
