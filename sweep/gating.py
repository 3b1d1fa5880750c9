"""Records judged anew by the gates of today: a gate decides nothing of what is measured."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from sweep import accuracy

if TYPE_CHECKING:
    from sweep.accuracy import Gates
    from sweep.record import Record, Store

_BY_A_GATE = re.compile(r"(under load, on stream \d+: )?accuracy: .*\(accuracy\.\w+\)")


def regated(store: Store, found: Record, gates: Gates) -> Record:
    """The record as these gates have it, rewritten if that changes its status.

    What is invalid for another reason than a gate stays so, as does what one of several clients was found to be: the
    record's accuracy may be another's.
    """
    failed = found.status == "invalid" and _BY_A_GATE.match((found.error or {}).get("message", "")) is not None
    dtype = (found.variant.get("precision_recipe") or {}).get("dtype")
    if found.accuracy is None or dtype is None or not (found.status == "ok" or failed):
        return found
    reason = accuracy.contradicts(dtype, found.accuracy, gates)
    if (reason is not None) == failed:
        return found
    error = reason and {"stage": "realised", "kind": "Mismatch", "message": reason, "stderr_tail": []}
    made = replace(found, status="invalid" if reason else "ok", error=error or None)
    store.write(made)
    return made
