"""Puts this folder on the path of every test, for ``require``; tests side by side wait for no device."""

import os
import tempfile

_LOCKS = tempfile.TemporaryDirectory(prefix="sweep-locks-")  # that of the machine is for measurements
os.environ["SWEEP_LOCK_DIR"] = _LOCKS.name
