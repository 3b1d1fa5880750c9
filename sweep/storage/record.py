"""Define the record of one variant.

The layout is an interface. A change of a field bumps ``SCHEMA``, brings a migration (``record_file``) and leaves a
golden old record in ``tests/data/records``. A new key in a table is no such change: older readers keep it and do not
read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sweep.spec import (
    JsonDict,  # noqa: TC001 - msgspec reads the annotations when the program runs
    Status,  # noqa: TC001 - as above
)
from sweep.storage import record_types as types

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Hold the outcome of one variant. ``ips`` is samples per second; an unknown value is None, never zero.

    Attributes:
        schema: version of this layout.
        key: key of the variant (``sweep.spec.variant_key``); the file's name.
        sweep: name of the sweep; the folder's name.
        status: how the variant ended.
        started_at: UTC, ISO 8601.
        wall_s: duration of the work on this variant, s.
        variant: every axis (``sweep.spec.flat``); ``record_types.VariantFields`` has what readers use of it.
        facts: facts that must be equal for a comparison.
        model: the network; None where it was not reached.
        engine: the engine; None where it was not reached.
        realised: what really ran; None where nothing did.
        peak: the closed loop; None where it was not measured.
        points: the open loop, lowest rate first.
        slo: the capacity under the SLO; None without one.
        accuracy: error of the outputs against fp32; None where no model ran.
        telemetry: state of the GPU over all measured windows; None without a GPU.
        drift: whether the machine stayed the same; None where no sentinel ran.
        error: why it did not end ``ok``; None where it did.
    """

    schema: int = SCHEMA
    key: str
    sweep: str
    status: Status
    started_at: str
    wall_s: types.Seconds | None = None
    variant: JsonDict
    facts: types.Facts = field(default_factory=types.Facts)
    model: types.ModelCost | None = None
    engine: types.EngineInfo | None = None
    realised: types.Realised | None = None
    peak: types.Peak | None = None
    points: list[types.Point] = field(default_factory=list)
    slo: types.SloResult | None = None
    accuracy: types.Accuracy | None = None
    telemetry: types.GpuState | None = None
    drift: types.Drift | None = None
    error: types.ErrorInfo | None = None
