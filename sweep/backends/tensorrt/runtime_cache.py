"""Store the kernels that TensorRT-RTX compiled for this GPU beside the engines, so that the next load need not compile.

A file is the sha256 of its content, a line feed and the content. A damaged one is ignored and written again; one that
cannot be written costs the next load its time and nothing else.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sweep.system import file_trust, regular_files, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

KIND = "runtime"  # folder in the cache, beside ``engines``
_DIGEST = 64


def path(engine: Path, sm_count: int) -> Path:
    """Return the file of the compiled kernels of cache entry ``engine``, for a GPU or MPS share of ``sm_count`` SMs."""
    return engine.parent.parent / KIND / f"{engine.name}-sm{sm_count}.bin"


def read(file: Path) -> bytes | None:
    """Read the content; None if the file is missing, damaged, or another user may have written it."""
    try:
        raw = b"" if file_trust.distrust_reason(file) else regular_files.read_bytes(file, follow=False)
    except OSError:
        return None
    digest, content = raw[:_DIGEST], raw[_DIGEST + 1 :]
    return content if hashlib.sha256(content).hexdigest().encode() == digest else None


def write(file: Path, content: bytes) -> bool:
    """Write the content atomically and return whether that succeeded."""
    try:
        write_atomic(file, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    except OSError:
        return False
    return True
