"""Select the devices that a sweep measures on: the GPUs, and the CPU cores of each."""

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
    """Describe the device of one device runner.

    Attributes:
        uuid: of the GPU, from NVML; None without a GPU or without NVML.
        cores: logical CPUs that its workers run on; None allows all.
        shown: name to print where there are several devices; empty otherwise.
    """

    uuid: str | None = None
    cores: Cores | None = None
    shown: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that pin a child process to the GPU."""
        return {} if self.uuid is None else {"CUDA_VISIBLE_DEVICES": self.uuid}


def find_devices(requested: Sequence[str] | None) -> tuple[Device, ...]:
    """Find the GPUs to measure on, in the order of the request, each with nearby cores of its own.

    Args:
        requested: indices among the visible GPUs, UUIDs (or their beginnings), or ``all``; None for the first.

    Returns:
        One device per GPU; a single one without UUID if NVML or a GPU is missing and none is requested.

    Raises:
        ConfigError: there is no such GPU, or NVML, which lists them, is missing.
    """
    library = nvml.library()
    if library is None:
        if requested:
            raise ConfigError(
                f"gpus={_format_request(requested)}: NVML cannot be read here (driver and nvidia-ml-py are needed)"
            )
        return (Device(),)
    try:
        uuids = _select_uuids(nvml.uuids(library), requested)
        near = [nvml.cores(library, uuid) for uuid in uuids]
    except library.NVMLError as error:
        raise ConfigError(
            f"gpus={_format_request(requested)}: NVML reports {error}; nvidia-smi -L lists the GPUs"
        ) from error
    finally:
        nvml.close(library)
    cores = assign_cores(near, frozenset(os.sched_getaffinity(0)))
    return tuple(
        Device(uuid=uuid, cores=share, shown=f"GPU {number}" if len(uuids) > 1 else "")
        for number, (uuid, share) in enumerate(zip(uuids, cores, strict=True))
    ) or (Device(),)


def _format_request(requested: Sequence[str] | None) -> str:
    return ",".join(requested or ())


def _select_uuids(visible: Sequence[str], requested: Sequence[str] | None) -> list[str]:
    if requested is None:
        return list(visible[:1])
    if list(requested) == [_ALL]:
        return list(visible)
    uuids = [_match_uuid(word, visible) for word in requested]
    if len(set(uuids)) < len(uuids):
        raise ConfigError(f"gpus={_format_request(requested)}: names a GPU twice; name each once")
    return uuids


def _match_uuid(word: str, visible: Sequence[str]) -> str:
    if word.isdecimal() and int(word) < len(visible):
        return visible[int(word)]
    matches = [uuid for uuid in visible if not word.isdecimal() and uuid.startswith(word)]
    if len(matches) != 1:
        visible_names = ", ".join(f"{number} {uuid}" for number, uuid in enumerate(visible)) or "none"
        raise ConfigError(
            f"gpus: {word} is {'no' if not matches else 'more than one'} GPU here; there are: {visible_names}"
        )
    return matches[0]


def assign_cores(near: Sequence[Cores | None], allowed: Cores) -> list[Cores | None]:
    """Assign cores to each device runner: those near its GPU, split among runners that are near the same ones.

    Hyperthreads of one core go to one runner. A single runner whose GPU is near all cores is not pinned.

    Args:
        near: cores near each GPU; None if they are unknown.
        allowed: cores that this process may use.

    Returns:
        The cores of each runner, in the order of ``near``; None leaves it unpinned.

    Raises:
        ConfigError: there are fewer cores than runners.
    """
    preferred = [(cores or allowed) & allowed or allowed for cores in near]
    if len(preferred) == 1:
        return [None if preferred[0] == allowed else preferred[0]]
    if len(allowed) < len(preferred):
        raise ConfigError(f"gpus: {len(preferred)} GPUs, but this process may use {len(allowed)} cores: ask for fewer")
    free_cores = allowed
    assigned: dict[int, Cores] = {}
    for cores in dict.fromkeys(preferred):
        runners = [number for number, own in enumerate(preferred) if own == cores]
        parts = _split_cores(cores & free_cores, len(runners))
        free_cores -= cores
        assigned |= dict(zip(runners, parts, strict=True))
    if not all(assigned.values()):  # Too few cores near the GPUs: separate cores matter more than near ones.
        return list(_split_cores(allowed, len(preferred)))
    return [assigned[number] for number in range(len(preferred))]


def _split_cores(cores: Cores, parts: int) -> list[Cores]:
    """Split ``cores`` into ``parts`` contiguous ranges, of whole physical cores as far as they suffice."""
    whole = list(dict.fromkeys(_siblings(core) & cores for core in sorted(cores)))
    pieces = whole if len(whole) >= parts else [frozenset({core}) for core in sorted(cores)]
    bounds = [len(pieces) * number // parts for number in range(parts + 1)]
    return [frozenset().union(*pieces[low:high]) for low, high in pairwise(bounds)]


def _siblings(core: int) -> Cores:
    """Return the hyperthreads of the physical core that ``core`` belongs to."""
    try:
        return parse_cpu_list(Path(_SIBLINGS.format(core)).read_text())
    except (OSError, ValueError):
        return frozenset({core})


def parse_cpu_list(text: str) -> Cores:
    """Parse the kernel's notation of a set of CPUs, such as ``0-2,8``.

    Source:
        *List format* of cpuset(7).

    Raises:
        ValueError: ``text`` is not in that notation.
    """
    ends = [part.partition("-") for part in text.strip().split(",")]
    return frozenset(core for low, _, high in ends for core in range(int(low), int(high or low) + 1))


def memory_used_bytes(uuid: str | None) -> int | None:
    """Return the memory in use on the GPU by all processes, bytes; None if NVML cannot read it.

    Args:
        uuid: UUID of the GPU; None returns None.
    """
    library: Any = nvml.library() if uuid else None
    if library is None:
        return None
    try:
        return int(library.nvmlDeviceGetMemoryInfo(nvml.visible(library, uuid)).used)
    except library.NVMLError:
        return None
    finally:
        nvml.close(library)
