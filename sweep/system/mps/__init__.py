"""CUDA MPS: the control daemon that lets processes share a GPU at once, each with a share of its SMs.

A share is bound when a process makes its CUDA context, by variables in its environment, so all of this is done in the
parent before a child starts. Variables and commands are those of NVIDIA's *Multi-Process Service* guide
(https://docs.nvidia.com/deploy/mps).
"""

from sweep.system.mps.machine import available, share_of, without
from sweep.system.mps.sharing import Mps

__all__ = ["Mps", "available", "share_of", "without"]
