"""On PYTHONPATH, Python runs this at its start: a sweep and its worker write down the stage that they are in."""

import sys
from pathlib import Path

if {"sweep", "sweep.runner.worker.main"} & set(sys.orig_argv):
    sys.path.append(str(Path(__file__).parents[2] / "support"))
    import stages

    stages.install()
