"""Refuse records of pipelines in commands that work on one network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.errors import ConfigError

if TYPE_CHECKING:
    from sweep.storage import Record


def check(record: Record, command: str) -> None:
    """Refuse a record of a pipeline.

    Args:
        record: what the command is given.
        command: name of the command, as typed.

    Raises:
        ConfigError: it is of a pipeline; one line.
    """
    if record.variant.get("pipeline") is not None:
        raise ConfigError(
            f"record {record.key} is of a pipeline, and sweep {command} works on one network; measure a stage alone, "
            f"as in sweep model=NAME, and give its record"
        )
