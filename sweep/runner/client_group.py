"""The clients of one variant: N workers that do a job together, told from the outside as one.

Each worker is watched by a thread of its own. Where they meet (``sweep.loadgen.communicator``) their messages come
together here; one that dies, errs or is silent ends the job for all of them, with its own error.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.runner.worker_process import Outcome
from sweep.storage.samples_file import handed_over

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweep.runner.worker_process import Worker
    from sweep.spec import JsonDict

    OnEvent = Callable[[JsonDict], None]


_GRACE_S = 5.0
_OWN = ("contexts", "sm_count", "sm_reached", "under_mps")  # of ``realised``, that each client has to show for itself


class LeftError(Exception):
    """A client that others wait for will not come."""


class Rendezvous:
    """Where each client brings a value and waits until all have.

    Args:
        clients: how many.
    """

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self._changed = threading.Condition()
        self._rounds: dict[int, dict[int, Any]] = {}
        self._over = False

    def meet(self, client: int, number: int, value: Any) -> list[Any]:
        """Every client's value of round ``number``, by client.

        Raises:
            LeftError: one of them left before it came.
        """
        with self._changed:
            values = self._rounds.setdefault(number, {})
            values[client] = value
            self._rounds.pop(number - 2, None)  # all have come to the one after it, so nobody reads it any more
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._over or len(values) == self._clients)
            if len(values) < self._clients:
                raise LeftError
            return [values[number] for number in range(self._clients)]

    def leave(self) -> None:
        """A client is through, or gone: whoever waits for it, or will, is told so."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


class Party:
    """Workers that measure together.

    Args:
        workers: one a client.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = tuple(workers)

    def run(self, job: JsonDict, on_event: OnEvent, timeout_s: float) -> Outcome:
        """Have all of them do ``job``.

        Args:
            job: as ``sweep.runner.worker.main`` takes it.
            on_event: called with the events of the first client.
            timeout_s: longest silence of each, but for the time that it waits for the others.

        Returns:
            What the first client found, completed with what the others did (``combined``); or how the first of them
            ended that did not end well.
        """
        if len(self._workers) == 1:
            return self._workers[0].run(job, on_event, timeout_s)
        return _Together(self._workers, on_event).run(job, timeout_s)

    def leave(self, *, at_once: bool) -> None:
        """End the workers; ``at_once`` kills them."""
        for worker in self._workers if at_once else ():
            worker.strike()
        for worker in self._workers:
            if at_once:
                worker.kill()
            else:
                worker.close()


class _Together:
    """One job of several workers."""

    def __init__(self, workers: Sequence[Worker], on_event: OnEvent) -> None:
        self._workers = workers
        self._on_event = on_event
        self._rendezvous = Rendezvous(len(workers))
        self._outcomes: dict[int, Outcome] = {}  # in the order in which they ended
        self._broken: list[BaseException] = []
        self._changed = threading.Lock()

    def run(self, job: JsonDict, timeout_s: float) -> Outcome:
        threads = [
            threading.Thread(target=self._watch, args=(number, job | {"client": number}, timeout_s), daemon=True)
            for number in range(len(self._workers))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._end_all()
            for thread in threads:  # each still holds its worker's pipe
                thread.join(_GRACE_S)
            raise
        finally:
            for file in handed_over(Path(job["samples"]), len(self._workers)):  # not before: another may still read it
                file.unlink(missing_ok=True)
        if self._broken:
            raise self._broken[0]
        return self._told()

    def _watch(self, number: int, job: JsonDict, timeout_s: float) -> None:
        outcome = None
        try:
            outcome = self._workers[number].run(job, lambda event: self._on_client_event(number, event), timeout_s)
        except LeftError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in ``run``, in the caller's thread
            self._broken.append(error)
        with self._changed:
            if outcome is not None:
                self._outcomes[number] = outcome
        if outcome is None or outcome.status != "ok":
            self._end_all()
        else:
            self._rendezvous.leave()

    def _on_client_event(self, number: int, event: JsonDict) -> None:
        if event["event"] == "meet":
            values = self._rendezvous.meet(number, event["round"], event["value"])
            self._workers[number].answer({"met": values})
        elif number == 0:
            self._on_event(event)

    def _end_all(self) -> None:
        self._rendezvous.leave()
        for worker in self._workers:
            worker.strike()

    def _told(self) -> Outcome:
        for number, outcome in self._outcomes.items():
            if outcome.error is not None:
                name = _name(number, len(self._workers))
                return dataclasses.replace(
                    outcome, error={**outcome.error, "message": f"{name}: {outcome.error['message']}"}
                )
        if len(self._outcomes) < len(self._workers):
            waited = next(number for number in range(len(self._workers)) if number not in self._outcomes)
            message = f"{_name(waited, len(self._workers))} waited for others that were through already"
            error: JsonDict = {"stage": "measure", "kind": "LeftError", "message": message, "stderr_tail": []}
            return Outcome(status="failed", error=error)
        return Outcome(
            status="ok", result=combined([self._outcomes[number].result or {} for number in range(len(self._workers))])
        )


def _name(number: int, clients: int) -> str:
    return f"client {number + 1} of {clients}"


def combined(results: Sequence[JsonDict]) -> JsonDict:
    """The first client's result, with what is said of all of them.

    ``realised.clients`` has {contexts, sm_count, device_memory_bytes} of each, on a GPU {sm_reached, under_mps} too.
    The accuracy is the worst; a mismatch of any is that of the variant.
    """
    first, count = results[0], len(results)
    mismatches = [
        f"{_name(number, count)}: {result['mismatch']}" for number, result in enumerate(results) if result["mismatch"]
    ]
    each = [
        {name: result["realised"][name] for name in _OWN if name in result["realised"]}
        | {"device_memory_bytes": result["engine"]["device_memory_bytes"]}
        for result in results
    ]
    return {
        **first,
        "realised": {**first["realised"], "clients": each},
        "accuracy": _worst([result["accuracy"] for result in results]),
        "mismatch": mismatches[0] if mismatches else None,
    }


def _worst(found: Sequence[JsonDict | None]) -> JsonDict | None:
    """The accuracy of the client that is furthest from the reference, and that it is the worst."""
    known = [item for item in found if item is not None]
    if not known:
        return None
    worst = min(known, key=_badness)
    said = f"the worst of {len(known)} clients"
    return {**worst, "note": f"{worst['note']}; {said}" if worst["note"] else said}


def _badness(found: JsonDict) -> tuple[int, float, float]:
    """Lower is worse: right after the timing or under a further load, then by the score."""
    looks = [found, *([found["again"]] if found.get("again") else [])]
    nonfinite = max(look["nonfinite"] or 0 for look in looks)
    levels = [math.inf if look["sqnr_db"] is None else look["sqnr_db"] for look in looks]
    return -nonfinite, min(levels), found.get("score") or 0.0
