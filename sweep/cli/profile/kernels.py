"""Read the kernels of ncu's CSV, and join them to the layers of the engine's own listing."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweep.cli.profile import nsight
from sweep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ID, _KERNEL, _METRIC, _VALUE = "ID", "Kernel Name", "Metric Name", "Metric Value"
_SUFFIX = re.compile(r"(?:_U\d+)?_myl\d+_\d+$")  # what the library adds to the name of a node
_HASH = re.compile(r"_0x[0-9a-f]{8,}.*$")  # what it adds to the name of a kernel that it compiled


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Describe one kernel of an inference.

    Attributes:
        name: its function.
        metrics: value by ncu's name, in base units (ns, bytes, %).
        layer: name of the layer that launched it; None where it is not known.
    """

    name: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    layer: str | None = None

    @property
    def duration_us(self) -> float:
        """Return the duration, us; NaN where ncu did not measure it."""
        return self.metrics.get(nsight.DURATION, math.nan) / 1e3


def parse(text: str) -> list[Kernel]:
    """Return the kernels of ncu's CSV, in the order of their launches.

    Args:
        text: one line per kernel and metric, as ``--page details`` prints it; lines of ncu or of the program may
            precede it.

    Raises:
        ConfigError: there is no such table.
    """
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith(f'"{_ID}"')), None)
    if start is None:
        raise ConfigError("ncu printed no table of kernels")
    names: dict[str, str] = {}
    metrics: dict[str, dict[str, float]] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines[start:]))):
        if row.get(_METRIC) is None or row.get(_VALUE) is None:
            continue
        names[row[_ID]] = row[_KERNEL]
        value = _number(row[_VALUE])
        if value is not None:
            metrics.setdefault(row[_ID], {})[row[_METRIC]] = value
    return [Kernel(name=name, metrics=metrics.get(key, {})) for key, name in names.items()]


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:  # as "n/a", or a name
        return None


def of_one_inference(kernels: Sequence[Kernel], inferences: int) -> list[Kernel]:
    """Return the kernels of one inference, each metric the median over all; all of them where inferences differ."""
    count, rest = divmod(len(kernels), inferences)
    if rest or any(kernels[number].name != kernels[number % count].name for number in range(len(kernels))):
        return list(kernels)
    merged = []
    for first in range(count):
        same = kernels[first::count]
        names = dict.fromkeys(name for kernel in same for name in kernel.metrics)
        metrics = {
            name: statistics.median(kernel.metrics[name] for kernel in same if name in kernel.metrics) for name in names
        }
        merged.append(Kernel(name=kernels[first].name, metrics=metrics))
    return merged


def layer_names(listing: bytes) -> list[str]:
    """Return the names of the layers of an engine's listing (the inspector's JSON), in the order in which they run."""
    layers = json.loads(listing).get("Layers") or []
    return [str(layer.get("Name")) if isinstance(layer, dict) else str(layer) for layer in layers]


def join(kernels: Sequence[Kernel], layers: Sequence[str]) -> tuple[list[Kernel], str]:
    """Return the kernels with their layers, and in a few words how these were found.

    Args:
        kernels: of one inference, in order.
        layers: names of the layers, in the order in which they run.
    """
    if kernels and len(kernels) == len(layers):
        return [_with(kernel, layer) for kernel, layer in zip(kernels, layers, strict=True)], (
            f"by their order: {len(kernels)} kernels, {len(layers)} layers"
        )
    joined = list(_by_name(kernels, layers))
    known = sum(kernel.layer is not None for kernel in joined)
    return joined, f"by their names: {known} of {len(kernels)} kernels, of {len(layers)} layers"


def _by_name(kernels: Sequence[Kernel], layers: Sequence[str]) -> Iterator[Kernel]:
    """Yield each kernel with the next layer that has its name, and None where no layer has it."""
    place = 0
    for kernel in kernels:
        for number in range(place, len(layers)):
            if _alike(kernel.name, layers[number]):
                place = number + 1
                yield _with(kernel, layers[number])
                break
        else:
            yield kernel


def _alike(kernel: str, layer: str) -> bool:
    """Tell whether the library named a kernel after a layer, as it does for those that it compiles."""
    stem = _SUFFIX.sub("", layer)
    return bool(stem) and _HASH.sub("", kernel) in {stem, layer}


def _with(kernel: Kernel, layer: str) -> Kernel:
    return Kernel(name=kernel.name, metrics=kernel.metrics, layer=layer)


def longest(kernels: Sequence[Kernel], count: int) -> list[Kernel]:
    """Return the `count` longest kernels, the longest first."""
    timed = [kernel for kernel in kernels if not math.isnan(kernel.duration_us)]
    return sorted(timed, key=lambda kernel: -kernel.duration_us)[:count]


def tensor_share(kernel: Kernel) -> float | None:
    """Return how busy the Tensor Cores were, %; None where ncu did not measure it."""
    return next((kernel.metrics[name] for name in nsight.TENSOR if name in kernel.metrics), None)


def blocks_limit(kernel: Kernel) -> str | None:
    """Return what limits the blocks on an SM, as ``shared_mem (1)``; None where ncu did not tell."""
    limits = {name: kernel.metrics[name] for name in nsight.LIMITS if name in kernel.metrics}
    if not limits:
        return None
    name = min(limits, key=limits.__getitem__)
    return f"{name.rpartition('limit_')[2]} ({limits[name]:.0f})"
