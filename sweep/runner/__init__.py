"""Run a plan: the parent's half, from work to records; ``runner.worker`` is the child's.

``plan`` orders the work, ``resume`` and ``filters`` leave what is to be done of it, ``executor`` hands it to one
``device_runner`` a device. That one has a ``device_access`` (its lock), a ``pass_order``, a ``worker_pool`` with a
``client_group`` of ``worker_process``es, which ``job_client`` sends ``messages``, a ``monitored_pass`` and a
``drift_sentinel``, ``pass_samples`` until a variant is whole, and a ``record_finisher``.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
