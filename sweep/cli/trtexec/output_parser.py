"""Parse what ``trtexec`` and ``tensorrt_rtx`` print. Format: samples/common/sampleReporting.cpp, 10.0 to 11.1.

Lines may carry a time and severity or only one of them, and a page may have wrapped them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from sweep.errors import ParityError, shorten

_HEADER = "=== Performance summary ==="
_PREFIX = re.compile(r"^\s*(?:\[[^\]]*\]\s*)*")  # [07/30/2024-15:30:36] [I] [TRT]
_NUMBER = r"([-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|nan|inf))"
_THROUGHPUT = re.compile(rf"Throughput: {_NUMBER} qps")
_METRIC = re.compile(
    r"(H2D Latency|D2H Latency|End-to-End Host Latency|Latency|Enqueue Time|GPU Compute Time): "
    rf"min = {_NUMBER} ms, max = {_NUMBER} ms, mean = {_NUMBER} ms, median = {_NUMBER} ms"
    r"((?:, percentile\([\d.]+%\) = \S+ ms)*)"
)
_PERCENTILE = re.compile(rf"percentile\(([\d.]+)%\) = {_NUMBER} ms")
_BANNER = re.compile(r"&&&& (RUNNING|PASSED|FAILED) \S+ \[TensorRT v([\d.]+)\]")
_VERSION = re.compile(r"TensorRT version: (\d+(?:\.\d+)+)")
_ECHO = re.compile(r"^(Data transfers|Spin-wait|CUDA Graph|ExposeDMA): (Enabled|Disabled)$", re.MULTILINE)
_UNGRAPHED = ("CUDA graph capture failed", "--useCudaGraph flag has been ignored")
_ERROR_CHARACTERS = 1000  # of all errors that it printed
_FIRST_SPELLED_SO = 10000  # 8.6.1 was v8601; since 10.0 minor and patch have two digits each
_WARNING = re.compile(r"^\s*(?:\[[^\]]*\]\s*)*\[W\]\s*(.+)$", re.MULTILINE)
_ERROR = re.compile(r"^\s*(?:\[[^\]]*\]\s*)*\[E\]\s*(.+)$", re.MULTILINE)

Metric = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Hold the figures of one run, each metric {min, max, mean, median, p90, ...} in ms.

    Attributes:
        version: as the binary printed it, ``10.13.0``; None if it printed none.
        throughput_qps: inferences/s.
        latency_ms: H2D + compute + D2H of one inference, on the GPU's clock.
        gpu_compute_ms: compute alone.
        enqueue_ms: host time of the enqueue; None if the output lacks it.
        ungraphed: whether the binary ran without the CUDA graph that its flags requested.
        echo: the options that it reported at its start: {``CUDA Graph``: True, ...}.
        warnings: its warnings, without repetition.
    """

    version: str | None
    throughput_qps: float
    latency_ms: Metric
    gpu_compute_ms: Metric
    enqueue_ms: Metric | None
    ungraphed: bool
    echo: dict[str, bool]
    warnings: tuple[str, ...]


def parse(text: str) -> Summary:
    """Return the last summary in `text`.

    Raises:
        ParityError: if there is none, it is incomplete, or a figure in it is not finite.
    """
    plain = "\n".join(_PREFIX.sub("", line).rstrip() for line in text.splitlines())
    before, header, after = plain.rpartition(_HEADER)
    if not header:
        raise ParityError(f"no performance summary in its output{_because(text)}")
    joined = " ".join(after.split())
    metrics = {match[1]: _metric(match) for match in _METRIC.finditer(joined)}
    throughput = _THROUGHPUT.search(joined)
    absent = [name for name in ("Latency", "GPU Compute Time") if name not in metrics]
    if throughput is None or absent:
        raise ParityError(f"its summary has no {', '.join(absent) or 'Throughput'}")
    return Summary(
        version=version(text),
        throughput_qps=_finite(throughput[1], "Throughput"),
        latency_ms=metrics["Latency"],
        gpu_compute_ms=metrics["GPU Compute Time"],
        enqueue_ms=metrics.get("Enqueue Time"),
        ungraphed=any(words in text for words in _UNGRAPHED),
        echo={name: state == "Enabled" for name, state in _ECHO.findall(before)},
        warnings=tuple(dict.fromkeys(line.strip() for line in _WARNING.findall(text))),
    )


def version(text: str) -> str | None:
    """Return the version, e.g. ``10.13.0``, from its line or from the banner ``v101300``, or None."""
    line = _VERSION.search(text)
    if line:
        return line[1]
    banner = _BANNER.search(text)
    if banner is None or "." in banner[2]:
        return None if banner is None else banner[2]
    number = int(banner[2])
    if number < _FIRST_SPELLED_SO:
        return None
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def failure_reason(text: str) -> str | None:
    """Return the reason that the binary printed for its failure, or None if it reported no failure."""
    if any(match[1] == "FAILED" for match in _BANNER.finditer(text)):
        return _because(text).removeprefix(": ") or "it gave no reason"
    return None


def _because(text: str) -> str:
    errors = list(dict.fromkeys(line.strip() for line in _ERROR.findall(text)))
    return f": {shorten('; '.join(errors), _ERROR_CHARACTERS)}" if errors else ""


def _metric(match: re.Match[str]) -> Metric:
    values = dict(zip(("min", "max", "mean", "median"), match.groups()[1:5], strict=True))
    values |= {f"p{mark}": value for mark, value in _PERCENTILE.findall(match[6])}
    return {name: _finite(value, match[1]) for name, value in values.items()}


def _finite(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ParityError(f"its {name} is {text}, which is no figure")
    return value
