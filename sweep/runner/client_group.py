"""Run one request on N client processes and merge their results into one outcome.

Each worker is followed by a thread of its own. What they exchange (``sweep.loadgen.communicator``) comes together here;
one that dies, fails or is silent ends the request for all of them, with its own error.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from typing import TYPE_CHECKING, Any, cast

import msgspec

from sweep.analysis import accuracy
from sweep.runner.messages import Exchange, Values
from sweep.runner.worker_process import Outcome
from sweep.spec import Status
from sweep.storage import samples_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.runner.messages import AnyEvent, Request, Result
    from sweep.runner.worker_process import OnEvent, Worker
    from sweep.storage import (
        Accuracy,
        AccuracyFigures,
        ClientSession,
        EngineInfo,
        ErrorInfo,
        Realised,
    )

_GRACE_S = 5.0
_CLIENT_FACTS = (
    "contexts",
    "sm_count",
    "sm_reached",
    "under_mps",
)  # of ``realised``, that each client has to show for itself


class LeftError(Exception):
    """Tell whoever waits that another client has left."""


class Rendezvous:
    """Collect a value of each client, and give all of them to each once the last has come.

    Args:
        clients: number of clients.
    """

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self._changed = threading.Condition()
        self._rounds: dict[int, dict[int, Any]] = {}
        self._over = False

    def meet(self, client: int, number: int, value: Any) -> list[Any]:
        """Return every client's value of round `number`, by client.

        Raises:
            LeftError: one of them left before its value came.
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
        """Mark a client as finished or gone: whoever waits for it, or will, gets a ``LeftError``."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


class ClientGroup:
    """Run requests on workers that measure together.

    Args:
        workers: one a client, or one a network of several side by side, the one that is measured first.
        names: of the networks side by side; None for clients of one network.
    """

    def __init__(self, workers: Sequence[Worker], names: Sequence[str] | None = None) -> None:
        self._workers = tuple(workers)
        self._names = names

    def run(self, request: Request, on_event: OnEvent, timeout_s: float) -> Outcome:
        """Run `request` on all of them.

        Args:
            request: what each is to do.
            on_event: called with the events of the first client.
            timeout_s: longest silence of each, but for the time that it waits for the others.

        Returns:
            The result of the first client, completed with those of the others (``merged``); or the outcome of the first
            of them that did not end well.
        """
        if len(self._workers) == 1:
            return self._workers[0].run(request, on_event, timeout_s)
        return _GroupRun(self._workers, on_event, self._names).run(request, timeout_s)

    def end(self, *, at_once: bool) -> None:
        """End the workers; `at_once` kills them."""
        for worker in self._workers if at_once else ():
            worker.send_sigkill()
        for worker in self._workers:
            if at_once:
                worker.kill()
            else:
                worker.close()


class _GroupRun:
    """Run one request on several workers."""

    def __init__(self, workers: Sequence[Worker], on_event: OnEvent, names: Sequence[str] | None) -> None:
        self._workers = workers
        self._names = names
        self._on_event = on_event
        self._rendezvous = Rendezvous(len(workers))
        self._outcomes: dict[int, Outcome] = {}  # in the order in which they ended
        self._raised: list[BaseException] = []
        self._changed = threading.Lock()

    def run(self, request: Request, timeout_s: float) -> Outcome:
        threads = [
            threading.Thread(
                target=self._follow,
                args=(number, msgspec.structs.replace(request, client=number), timeout_s),
                daemon=True,
            )
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
            # Not before: another client may still read it.
            for file in samples_file.client_paths(request.samples, len(self._workers)):
                file.unlink(missing_ok=True)
            samples_file.windows_path(request.samples).unlink(missing_ok=True)
        if self._raised:
            raise self._raised[0]
        return self._outcome()

    def _follow(self, number: int, request: Request, timeout_s: float) -> None:
        outcome = None
        try:
            outcome = self._workers[number].run(request, lambda event: self._on_client_event(number, event), timeout_s)
        except LeftError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in ``run``, in the caller's thread
            self._raised.append(error)
        with self._changed:
            if outcome is not None:
                self._outcomes[number] = outcome
        if outcome is None or outcome.status != "ok":
            self._end_all()
        else:
            self._rendezvous.leave()

    def _on_client_event(self, number: int, event: AnyEvent) -> None:
        if isinstance(event, Exchange):
            self._workers[number].answer(Values(self._rendezvous.meet(number, event.round, event.value)))
        elif number == 0:
            self._on_event(event)

    def _end_all(self) -> None:
        self._rendezvous.leave()
        for worker in self._workers:
            worker.send_sigkill()

    def _outcome(self) -> Outcome:
        for number, outcome in self._outcomes.items():
            if outcome.error is not None and self._names is not None and number == 0:
                return outcome  # of the network that is measured, whose record this is
            if outcome.error is not None:
                name = self._name(number)
                return dataclasses.replace(
                    outcome, error={**outcome.error, "message": f"{name}: {outcome.error['message']}"}
                )
        if len(self._outcomes) < len(self._workers):
            waited = next(number for number in range(len(self._workers)) if number not in self._outcomes)
            message = f"{self._name(waited)} waited for others that were through already"
            error: ErrorInfo = {"stage": "measure", "kind": "LeftError", "message": message, "stderr_tail": []}
            return Outcome(status=Status.FAILED, error=error)
        results = [self._outcomes[number].result for number in range(len(self._workers))]
        if self._names is not None:
            return Outcome(status=Status.OK, result=results[0])  # which has what the others told
        return Outcome(status=Status.OK, result=merged([result for result in results if result is not None]))

    def _name(self, number: int) -> str:
        return _name(number, len(self._workers)) if self._names is None else self._names[number]


def _name(number: int, clients: int) -> str:
    return f"client {number + 1} of {clients}"


def merged(results: Sequence[Result]) -> Result:
    """Return the first client's result, completed with facts of all of them.

    ``realised.clients`` has {contexts, sm_count, device_memory_bytes} of each, on a GPU {sm_reached, under_mps} too.
    The accuracy is the worst; a mismatch of any is that of the variant, and no gate judges it again later: the accuracy
    in the record may be another client's.
    """
    first, count = results[0], len(results)
    mismatches = [
        f"{_name(number, count)}: {result.mismatch}" for number, result in enumerate(results) if result.mismatch
    ]
    each = [_client_session(result.realised, result.engine) for result in results if result.realised is not None]
    return msgspec.structs.replace(
        first,
        realised={**(first.realised or {}), "clients": each},
        accuracy=_worst([result.accuracy for result in results]),
        mismatch=mismatches[0] if mismatches else None,
        gate=None,
    )


def _client_session(realised: Realised, engine: EngineInfo) -> ClientSession:
    facts = {name: value for name, value in realised.items() if name in _CLIENT_FACTS}
    # A cast, for mypy follows no key that is a variable.
    return cast("ClientSession", {**facts, "device_memory_bytes": engine["device_memory_bytes"]})


def _worst(accuracies: Sequence[Accuracy | None]) -> Accuracy | None:
    """Return the accuracy of the client that is furthest from the reference, with a note that it is the worst."""
    measured = [item for item in accuracies if item is not None]
    if not measured:
        return None
    worst = min(measured, key=_rank)
    note = f"the worst of {len(measured)} clients"
    earlier_note = worst.get("note")
    return {**worst, "note": f"{earlier_note}; {note}" if earlier_note else note}


def _rank(of_client: Accuracy) -> tuple[int, float, float]:
    """Return a rank, lower is worse: right after the timing or under a further load, then by the score."""
    repeated = of_client.get("again")
    looks: list[AccuracyFigures] = [of_client, repeated] if repeated else [of_client]
    nonfinite = max(look.get("nonfinite") or 0 for look in looks)
    # Outputs that could not be compared may be anything: they are never the better ones.
    levels = [accuracy.level(look) if accuracy.is_known(look) else -math.inf for look in looks]
    return -nonfinite, min(levels), of_client.get("score") or 0.0
