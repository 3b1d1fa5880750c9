"""Make the session axes: streams, clients, MPS, SMs, CUDA graphs, transfers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.config.variants import axis_values
from sweep.config.variants.beside import session_beside
from sweep.errors import ConfigError
from sweep.spec import PER_SHAPE, Script, SessionAxes

if TYPE_CHECKING:
    from sweep.config.schema import Config


def session_axes(config: Config) -> SessionAxes:
    """Return the session axes.

    Raises:
        ConfigError: a value is out of its range, or two contradict each other; one line.
    """
    values = axis_values.checked(config, "session")
    budget = config.backend.weight_streaming_budget_mib
    if budget is not None and not config.backend.weight_streaming and config.model.engine is None:
        raise ConfigError(f"backend.weight_streaming_budget_mib={budget} needs backend.weight_streaming=true")
    switches = config.profile_switch and config.profiles == PER_SHAPE  # no other way has profiles to switch between
    values["profile_switch"] = True if switches else None
    script = None if config.backend.script is None else Script(**axis_values.checked(config, "session.script"))
    del values["beside"]
    return session_beside(config, SessionAxes(**values, script=script))
