"""Axes of the session: streams, clients, MPS, SMs, graphs, transfers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.config.variants import checks
from sweep.errors import ConfigError
from sweep.spec import Script, SessionAxes

if TYPE_CHECKING:
    from sweep.config.schema import BackendConfig, Config

_FULL = 100  # per cent
_WAITS = ("block", "spin", "yield")


def session_axes(config: Config) -> SessionAxes:
    """How the engine is held."""
    checks.at_least(1, streams=config.streams, clients=config.clients)
    if config.mps is not None and not 1 <= config.mps <= _FULL:
        raise ConfigError(f"mps={config.mps}: a percentage from 1 to 100, or null to run without MPS")
    checks.at_least(1, **{} if config.sm_count is None else {"sm_count": config.sm_count})
    return SessionAxes(
        streams=config.streams,
        clients=config.clients,
        mps=config.mps,
        sm_count=config.sm_count,
        cuda_graph=config.cuda_graph,
        transfers=config.transfers,
        wait=checks.one_of("backend.wait", config.backend.wait, _WAITS),
        weight_streaming_budget_mib=_weight_budget(config.backend),
        intra_op_threads=_threads(config.backend),
        script=_script(config.backend),
    )


def _weight_budget(config: BackendConfig) -> int | None:
    budget = config.weight_streaming_budget_mib
    if budget is None:
        return None
    checks.at_least(0, **{"backend.weight_streaming_budget_mib": budget})
    if not config.weight_streaming:
        raise ConfigError(f"backend.weight_streaming_budget_mib={budget} needs backend.weight_streaming=true")
    return budget


def _threads(config: BackendConfig) -> int | None:
    if config.intra_op_threads is not None:
        checks.at_least(1, **{"backend.intra_op_threads": config.intra_op_threads})
    return config.intra_op_threads


def _script(config: BackendConfig) -> Script | None:
    if config.script is None:
        return None
    script = config.script
    checks.above_zero(**{"backend.script.service_us": script.service_us})
    checks.at_least(0, **{"backend.script.sample_us": script.sample_us})
    if script.distribution not in {"constant", "exponential"}:
        raise ConfigError(f"backend.script.distribution={script.distribution}: constant or exponential")
    if script.raise_at not in {None, "build", "load", "measure"}:
        raise ConfigError(f"backend.script.raise_at={script.raise_at}: build, load or measure")
    for name in ("sleep_after_us", "wake_us"):
        checks.at_least(0, **{} if getattr(script, name) is None else {f"backend.script.{name}": getattr(script, name)})
    return Script(
        service_us=script.service_us,
        sample_us=script.sample_us,
        distribution=script.distribution,
        raise_at=script.raise_at,
        sleep_after_us=script.sleep_after_us,
        wake_us=script.wake_us,
        machine=script.machine,
    )
