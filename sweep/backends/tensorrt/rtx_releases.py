"""Choose the release of TensorRT-RTX for this machine's GPU: ``python -m sweep.backends.tensorrt.rtx_releases``.

A release builds engines on any machine, but not every one loads them on every GPU, and none says so before it has
loaded an engine. The command prints the release to install, and on stderr why. It needs no TensorRT.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from sweep.system import environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Describe a release of TensorRT-RTX.

    Attributes:
        version: its version on PyPI.
        refuses: compute capabilities on which it was seen to refuse every engine when it is loaded.
    """

    version: str
    refuses: frozenset[str] = frozenset()


RELEASES = (  # the newest first
    Release(version="1.7.1.116", refuses=frozenset({"9.0"})),
    Release(version="1.6.1.120"),
    Release(version="1.4.0.76"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Hold the release to install, and why it is that one.

    Attributes:
        version: its version on PyPI.
        reason: in one line.
    """

    version: str
    reason: str


def choose(gpu: str | None, compute_capability: str | None) -> Choice:
    """Return the newest release that loads engines on a GPU.

    Args:
        gpu: its name; None without a GPU.
        compute_capability: of the GPU, as ``9.0``; None without a GPU.
    """
    newest = RELEASES[0].version
    if gpu is None or compute_capability is None:
        return Choice(version=newest, reason=f"{newest} is the newest, for builds only: no GPU is seen here")
    refusing = [release.version for release in RELEASES if compute_capability in release.refuses]
    version = next(release.version for release in RELEASES if compute_capability not in release.refuses)
    where = f"{gpu} (compute capability {compute_capability})"
    if not refusing:
        return Choice(version=version, reason=f"{version} is the newest, and is not known to refuse {where}")
    refused = ", ".join(refusing)
    return Choice(
        version=version, reason=f"{version} is the newest that loads engines on {where}: {refused} refuses it"
    )


def choose_here() -> Choice:
    """Return the newest release that loads engines on the GPU of this process."""
    machine = environment.machine()
    return choose(machine["gpu"], machine["compute_capability"])


def refusal(version: str | None, compute_capability: str | None) -> str | None:
    """Return why an installed release cannot run here, in one line; None if it is not known to refuse.

    Args:
        version: the installed version; None if it is unknown.
        compute_capability: of the GPU; None without a GPU.
    """
    refuses = any(release.version == version and compute_capability in release.refuses for release in RELEASES)
    if not refuses:
        return None
    return (
        f"tensorrt_rtx {version} refuses every engine on compute capability {compute_capability}; "
        f"pip install tensorrt-rtx=={choose('this GPU', compute_capability).version}"
    )


def main() -> None:
    """Print the release on stdout, and the reason on stderr."""
    choice = choose_here()
    sys.stderr.write(f"TensorRT-RTX {choice.reason}; RTX_VERSION=... takes another\n")
    sys.stdout.write(f"{choice.version}\n")


if __name__ == "__main__":
    main()
