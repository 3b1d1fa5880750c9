"""What TensorRT-RTX compiled for this GPU, kept on disk beside the engines so that the next load need not again.

A file is the sha256 of its content, a line feed and the content. A damaged one is passed over and written anew; one
that cannot be written costs the next load its time and nothing else.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sweep.system import file_trust
from sweep.system.atomic_files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

KIND = "runtime"  # folder in the cache, beside ``engines``
_DIGEST = 64


def path(engine: Path, sm_count: int) -> Path:
    """Where the compiled kernels of the cache's entry ``engine`` lie, for a GPU or MPS share of that many SMs."""
    return engine.parent.parent / KIND / f"{engine.name}-sm{sm_count}.bin"


def read(file: Path) -> bytes | None:
    """The content; None where there is none, not as it was written, or another user may have written it."""
    try:
        raw = b"" if file_trust.distrusted(file) else file.read_bytes()
    except OSError:
        return None
    digest, content = raw[:_DIGEST], raw[_DIGEST + 1 :]
    return content if hashlib.sha256(content).hexdigest().encode() == digest else None


def write(file: Path, content: bytes) -> bool:
    """Put the content on disk, whole or not at all; whether that was done."""
    try:
        write_atomic(file, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    except OSError:
        return False
    return True
