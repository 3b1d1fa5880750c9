"""On PYTHONPATH, Python runs this at its start: workers get slower, libraries that must not be needed are gone."""

import os
import sys
import traceback

import slowdown

if os.environ.get(slowdown.BLOCKED):
    sys.meta_path.insert(0, slowdown.Blocker(os.environ[slowdown.BLOCKED].split(",")))
if "sweep.runner.worker.main" in sys.orig_argv and os.environ.get(slowdown.SHARE):
    try:
        slowdown.slow_down(float(os.environ[slowdown.SHARE]), int(os.environ[slowdown.BATCH]))
    except BaseException:  # noqa: BLE001 - Python would go on, and the campaign would call an equal measurement a slowed one
        traceback.print_exc()
        os._exit(3)
