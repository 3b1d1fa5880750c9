"""Read the resident memory of this process, and the most that it had since a moment."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): resets the peak resident set size, and nothing else
_KIB = 1024


def reset_peak() -> bool:
    """Let the peak begin at what is resident now; return whether the kernel did, as one without /proc does not."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def resident_bytes() -> int | None:
    """Return the resident memory, bytes; None where the kernel does not tell."""
    return _read("VmRSS")


def peak_bytes() -> int | None:
    """Return the most resident memory since ``reset_peak`` or the start, bytes; None where the kernel does not tell."""
    return _read("VmHWM")


def _read(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    values = (line.split() for line in lines if line.startswith(f"{name}:"))
    return next((int(words[1]) * _KIB for words in values if len(words) > 1 and words[1].isdecimal()), None)
