"""Share a GPU between processes through CUDA MPS, each with a share of its SMs.

A share is bound when a process creates its CUDA context, by variables in its environment, so all of this happens in the
parent before a child starts. Variables and commands are those of NVIDIA's *Multi-Process Service* guide
(https://docs.nvidia.com/deploy/mps).

Exports ``Mps`` (the daemon that children are sent to), ``available`` (why MPS cannot be used), ``share_of`` (the share
in a process's variables) and ``environment_without_mps`` (the variables that keep a process away from every daemon).
"""

from sweep.system.mps.machine import available, environment_without_mps, share_of
from sweep.system.mps.sharing import Mps

__all__ = ["Mps", "available", "environment_without_mps", "share_of"]
