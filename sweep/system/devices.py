"""The devices that a sweep measures on: which GPUs, and which cores go with each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError
from sweep.system import nvml

if TYPE_CHECKING:
    from collections.abc import Sequence

Cores = frozenset[int]
_ALL = "all"
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What one lane measures on.

    Attributes:
        uuid: of the GPU, as NVML has it; None where there is none, or NVML cannot tell.
        cores: logical CPUs that its workers run on; None leaves them all.
        shown: worth naming to a user, as one of several.
    """

    uuid: str | None = None
    cores: Cores | None = None
    shown: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What pins a child to the GPU."""
        return {} if self.uuid is None else {"CUDA_VISIBLE_DEVICES": self.uuid}


def find(asked: Sequence[str] | None) -> tuple[Device, ...]:
    """The GPUs to measure on, in the order asked, each with cores near it that no other one has.

    Args:
        asked: indices among the visible GPUs, UUIDs (or their beginnings), or ``all``; None for the first.

    Raises:
        ConfigError: there is no such GPU, or NVML, which would tell, is missing.
    """
    library = nvml.library()
    if library is None:
        if asked:
            raise ConfigError(f"gpus={_shown(asked)}: NVML cannot be read here (driver and nvidia-ml-py are needed)")
        return (Device(),)
    try:
        uuids = _picked(nvml.uuids(library), asked)
        near = [nvml.cores(library, uuid) for uuid in uuids]
    except library.NVMLError as error:
        raise ConfigError(f"gpus={_shown(asked)}: NVML says {error}") from error
    finally:
        nvml.close(library)
    cores = shares(near, frozenset(os.sched_getaffinity(0)))
    return tuple(
        Device(uuid=uuid, cores=share, shown=f"GPU {number}" if len(uuids) > 1 else "")
        for number, (uuid, share) in enumerate(zip(uuids, cores, strict=True))
    ) or (Device(),)


def _shown(asked: Sequence[str] | None) -> str:
    return ",".join(asked or ())


def _picked(visible: Sequence[str], asked: Sequence[str] | None) -> list[str]:
    if asked is None:
        return list(visible[:1])
    if list(asked) == [_ALL]:
        return list(visible)
    found = [_one(word, visible) for word in asked]
    if len(set(found)) < len(found):
        raise ConfigError(f"gpus={_shown(asked)}: names a GPU twice")
    return found


def _one(word: str, visible: Sequence[str]) -> str:
    if word.isdecimal() and int(word) < len(visible):
        return visible[int(word)]
    found = [uuid for uuid in visible if not word.isdecimal() and uuid.startswith(word)]
    if len(found) != 1:
        there = ", ".join(f"{number} {uuid}" for number, uuid in enumerate(visible)) or "none"
        raise ConfigError(f"gpus: {word} is {'no' if not found else 'more than one'} GPU here; there are: {there}")
    return found[0]


def shares(near: Sequence[Cores | None], allowed: Cores) -> list[Cores | None]:
    """The cores of each lane: those near its GPU, split among lanes that are near the same ones.

    Hyperthreads of one core go to one lane. A single lane with nothing to keep away from is left as it is.

    Args:
        near: cores near each GPU; None where that is not known.
        allowed: cores that this process may use.

    Raises:
        ConfigError: there are fewer cores than lanes.
    """
    wanted = [(cores or allowed) & allowed or allowed for cores in near]
    if len(wanted) == 1:
        return [None if wanted[0] == allowed else wanted[0]]
    if len(allowed) < len(wanted):
        raise ConfigError(f"gpus: {len(wanted)} GPUs, but this process may use {len(allowed)} cores: ask for fewer")
    left = allowed
    given: dict[int, Cores] = {}
    for cores in dict.fromkeys(wanted):
        lanes = [number for number, own in enumerate(wanted) if own == cores]
        dealt = _dealt(cores & left, len(lanes))
        left -= cores
        given |= dict(zip(lanes, dealt, strict=True))
    if not all(given.values()):  # near the same few cores: near counts for less than apart
        return list(_dealt(allowed, len(wanted)))
    return [given[number] for number in range(len(wanted))]


def _dealt(cores: Cores, lanes: int) -> list[Cores]:
    """``cores`` in as many stretches, whole physical cores as far as they go round."""
    whole = list(dict.fromkeys(_siblings(core) & cores for core in sorted(cores)))
    pieces = whole if len(whole) >= lanes else [frozenset({core}) for core in sorted(cores)]
    bounds = [len(pieces) * number // lanes for number in range(lanes + 1)]
    return [frozenset().union(*pieces[low:high]) for low, high in pairwise(bounds)]


def _siblings(core: int) -> Cores:
    """The hyperthreads of the physical core that ``core`` is one of."""
    try:
        return listed(Path(_SIBLINGS.format(core)).read_text())
    except (OSError, ValueError):
        return frozenset({core})


def listed(text: str) -> Cores:
    """``0-2,8`` as the kernel writes sets of CPUs."""
    ends = [part.partition("-") for part in text.strip().split(",")]
    return frozenset(core for low, _, high in ends for core in range(int(low), int(high or low) + 1))


def memory_used_bytes(uuid: str | None) -> int | None:
    """Memory in use on the GPU, by anybody; None where NVML cannot tell."""
    library: Any = nvml.library() if uuid else None
    if library is None:
        return None
    try:
        return int(library.nvmlDeviceGetMemoryInfo(nvml.visible(library, uuid)).used)
    except library.NVMLError:
        return None
    finally:
        nvml.close(library)
