"""Run where the disk of RESULTS is small: a sweep whose worker fills that disk, then the same one with room again.

``python full_disk.py RESULTS FAULTS``: prints, as JSON, what each of the two left behind.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))

from forked_command import run_forked

from sweep.storage.store import Store

FAULTY = Path(__file__).parent / "faulty"
LOAD = (
    "load=closed",
    "load.warmup_s=0.02",
    "load.min_s=0.1",
    "load.max_s=5",
    "load.min_requests=3000",
)  # samples above 16 KiB
WORDS = ("-m", "batch=1,2,3,4", *LOAD, "tracking=none", "name=full")


def start(results: Path, faults: str | None) -> dict[str, object]:
    environment = dict(os.environ)
    if faults is not None:
        environment |= {"SWEEP_TEST_FAULTS": faults, "PYTHONPATH": f"{FAULTY}:{os.environ['PYTHONPATH']}"}
    done = run_forked((*WORDS, f"results={results}"), environment, results.parent)
    store = Store(results / "full")
    records = [store.read(key) for key in store.record_keys()]
    return {
        "code": done.returncode,
        "output": done.stdout + done.stderr,
        "records": {
            str(record.variant["batch"]): [record.status, record.started_at, *(record.error or {}).values()]
            for record in records
        },
        "scraps": [str(path) for path in results.rglob(".*.????????")],
        "samples": sorted(path.stem for path in (results / "full" / "samples").glob("*.npz")),
    }


def main() -> None:
    results, faults = Path(sys.argv[1]), sys.argv[2]
    first = start(results, faults)
    for path in {what for what, _ in json.loads(faults).values() if what.startswith("/")}:
        Path(path).unlink(missing_ok=True)
    print(json.dumps({"first": first, "second": start(results, None)}))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
