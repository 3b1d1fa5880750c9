"""Compile the loops of the load generator to machine code that runs without the interpreter and without its lock.

This module needs numba. ``compiled_code`` alone imports it, where a machine has no code of it yet. Each function is the
compiled form of a reference: ``closed_loop`` of ``ClosedServer.serve``, ``open_loop`` of ``OpenServer.step`` and
``gather_loop`` of ``BatchServer.step``. ``tests/contract/test_compiled_loop.py`` holds both to the same order of calls
and the same samples.

Everything that a loop calls is a C function given by its address: those of the stream (``backends.PreparedCalls``), and
the clock and the sleep of the C library. A call passes four integers in registers whatever the function takes, which
the calling conventions of Linux on x86-64 and aarch64 allow. Nothing is allocated inside a loop.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import cfunc, njit, types
from numba.extending import intrinsic

from sweep.loadgen.loop_layout import (
    BATCH,
    BATCH_WAIT_NS,
    BATCHES,
    CALL_ELAPSED,
    CALL_ENTER,
    CALL_WAIT,
    CLOCK,
    COMPLETED,
    DEPTH,
    DONE_AT,
    EARLIEST_NS,
    ELAPSED,
    ENTER,
    ENTER_ARGUMENT,
    FAILED,
    FAILED_CALL,
    FAILURE,
    FILLED,
    FINISHED,
    FULL,
    GPU_AT,
    HOST_AT,
    ISSUED,
    LATEST_NS,
    LAUNCH,
    MARGIN_NS,
    MAX_WAIT_NS,
    MIN_COUNT,
    NEXT,
    NOT_READY,
    NUMBER,
    OVERLOADED,
    POLL,
    QUERY,
    READ,
    SLEEP,
    START_NS,
    STEPPED,
    STEPS,
    STOPPED,
    SYNCHRONISE,
    WAITED,
)

# no exceptions and no memory of numba's own: nothing of it is there when the code runs
_compiled = njit(error_model="numpy", _nrt=False)

_SECOND_NS = 1_000_000_000
_LONGEST_SLEEP_NS = 20_000_000  # a thread that sleeps notices the stop flag after it
_MONOTONIC, _ABSOLUTE = 1, 1  # CLOCK_MONOTONIC and TIMER_ABSTIME


@intrinsic
def _call(typingctx: Any, address: Any, one: Any, two: Any, three: Any, four: Any) -> Any:
    """Call the C function at ``address`` with four integers; returns its ``int``."""
    del typingctx, address, one, two, three, four

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        word = ir.IntType(64)
        function = ir.FunctionType(ir.IntType(32), [word] * 4)
        pointer = builder.inttoptr(arguments[0], function.as_pointer())
        return builder.sext(builder.call(pointer, arguments[1:]), word)

    return types.int64(types.int64, types.int64, types.int64, types.int64, types.int64), code


def _atomic(operation: str) -> Any:
    """Return an intrinsic that changes one place of an array of int64 atomically and returns its value before."""

    @intrinsic
    def change(typingctx: Any, array: Any, place: Any, value: Any) -> Any:
        del typingctx, place, value

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            struct = context.make_array(signature.args[0])(context, builder, arguments[0])
            pointer = builder.gep(struct.data, [arguments[1]])
            return builder.atomic_rmw(operation, pointer, arguments[2], "seq_cst")

        return types.int64(array, types.int64, types.int64), code

    return change


_atomic_add, _atomic_exchange = _atomic("add"), _atomic("xchg")


def _viewer(dtype: Any, dimensions: int) -> Any:
    """Return an intrinsic that views the array whose address and shape are at a place of a block.

    It is numba's ``carray`` without the memory management, which is not there when the code runs.
    """
    kind = types.Array(dtype, dimensions, "C")

    @intrinsic
    def view(typingctx: Any, block: Any, place: Any) -> Any:
        del typingctx, block, place

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            del signature
            word = ir.IntType(64)
            words = builder.gep(builder.inttoptr(arguments[0], word.as_pointer()), [arguments[1]])
            address, *shape = (
                builder.load(builder.gep(words, [ir.Constant(word, number)])) for number in range(1 + dimensions)
            )
            size = dtype.bitwidth // 8
            strides = [ir.Constant(word, size)]
            for length in reversed(shape[1:]):
                strides.insert(0, builder.mul(strides[0], length))
            array = context.make_array(kind)(context, builder)
            data = builder.inttoptr(address, array.data.type)
            context.populate_array(
                array, data=data, shape=shape, strides=strides, itemsize=ir.Constant(word, size), meminfo=None
            )
            return array._getvalue()  # noqa: SLF001 - as numba's own intrinsics do

        return kind(types.int64, types.int64), code

    return view


_bytes, _shorts, _ints, _words = (_viewer(dtype, 1) for dtype in (types.int8, types.int16, types.int32, types.int64))
_table, _table_sets = (_viewer(types.int64, dimensions) for dimensions in (2, 4))
_floats, _rows = (_viewer(types.float32, dimensions) for dimensions in (1, 2))


@intrinsic
def _pause(typingctx: Any) -> Any:
    """Keep the compiler from moving reads of memory out of a loop that waits for another thread."""
    del typingctx

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del arguments
        builder.fence("seq_cst")
        return context.get_constant(signature.return_type, 0)

    return types.int64(), code


@_compiled
def _now_ns(system: Any, times: Any) -> Any:
    _call(system[CLOCK], _MONOTONIC, times.ctypes.data, 0, 0)
    return times[0] * _SECOND_NS + times[1]


@_compiled
def _sleep_until_ns(system: Any, times: Any, due_ns: Any, stop: Any) -> Any:
    """Return the time at or right after ``due_ns``; earlier where the stop flag is set."""
    while True:
        now = _now_ns(system, times)
        if now >= due_ns or stop[0] != 0:
            return now
        ahead = due_ns - now - system[MARGIN_NS]
        if ahead > 0:
            until = now + min(ahead, _LONGEST_SLEEP_NS)
            times[0] = until // _SECOND_NS
            times[1] = until % _SECOND_NS
            _call(system[SLEEP], _MONOTONIC, _ABSOLUTE, times.ctypes.data, 0)


@_compiled
def _over(state: Any, now: Any, count: Any) -> Any:
    """Return whether the closed loop ends: ``closed_loop.Until.over``."""
    if now < state[EARLIEST_NS]:
        return now < state[START_NS]
    return count >= state[MIN_COUNT] or now >= state[LATEST_NS]


@_compiled
def _fail(state: Any, call: Any, error: Any) -> Any:
    state[FAILED_CALL] = call
    state[FAILURE] = error
    return FAILED


@_compiled
def _enter(api: Any, state: Any) -> Any:
    """Give this thread the context of the device."""
    if api[ENTER] != 0:
        error = _call(api[ENTER], api[ENTER_ARGUMENT], 0, 0, 0)
        if error != 0:
            return _fail(state, CALL_ENTER, error)
    return 0


@_compiled
def _read_one(api: Any, events: Any, state: Any, gpu: Any, place: Any, elapsed: Any) -> Any:
    """Read the times of the parts of the oldest inference that was not read, into ``gpu[place]``."""
    ring = state[READ] % events.shape[0]
    for part in range(events.shape[1] - 1):
        error = _call(api[ELAPSED], elapsed.ctypes.data, events[ring, part], events[ring, part + 1], 0)
        if error != 0:
            return _fail(state, CALL_ELAPSED, error)
        gpu[place, part] = elapsed[0]
    state[READ] += 1
    return 0


@_compiled
def _start(system: Any, api: Any, calls: Any, row: Any, state: Any, host: Any, place: Any, times: Any) -> Any:
    """Make the calls of one inference; the time of the launch alone goes into ``host[place]``, ns."""
    ring = state[ISSUED] % calls.shape[1]
    for step in range(calls.shape[2]):
        if calls[row, ring, step, 0] == 0:
            continue
        begin = _now_ns(system, times) if step == api[LAUNCH] else 0
        error = _call(
            calls[row, ring, step, 0],
            calls[row, ring, step, 1],
            calls[row, ring, step, 2],
            calls[row, ring, step, 3],
            calls[row, ring, step, 4],
        )
        if step == api[LAUNCH]:
            host[place] = _now_ns(system, times) - begin
        if error != 0:
            return _fail(state, step, error)
    state[ISSUED] += 1
    return 0


@_compiled
def _wait(system: Any, api: Any, events: Any, state: Any, stop: Any) -> Any:
    """Wait for the oldest inference in flight, in the library's own call or by polling."""
    event = events[state[WAITED] % events.shape[0], events.shape[1] - 1]
    if system[POLL] == 0:
        error = _call(api[SYNCHRONISE], event, 0, 0, 0)
    else:
        error = _call(api[QUERY], event, 0, 0, 0)
        while error == api[NOT_READY]:
            if stop[0] != 0:
                return STOPPED
            error = _call(api[QUERY], event, 0, 0, 0)
    if error != 0:
        return _fail(state, CALL_WAIT, error)
    state[WAITED] += 1
    return 0


@_compiled
def closed_loop(  # noqa: C901, PLR0911, PLR0912 - one loop, whose exits are its answers
    system: Any,
    api: Any,
    calls: Any,
    events: Any,
    state: Any,
    first: Any,
    done: Any,
    gpu: Any,
    host: Any,
    times: Any,
    elapsed: Any,
    stop: Any,
) -> Any:
    """Keep ``state[DEPTH]`` inferences in flight on one stream until the time is up and the count is reached.

    Args:
        system: addresses and settings shared by all streams, shape (SYSTEM,).
        api: functions of the stream, shape (API,).
        calls: address and four arguments of each call of an inference, shape (1, places, steps, 5); address 0 is no
            call.
        events: events before, between and after the parts of an inference, shape (places, parts + 1).
        state: see the constants above, shape (STATE,).
        first: issue times of the inferences that fill the stream, ns.
        done: receives the completion times, ns.
        gpu: receives the times of the parts by the device's clock, ms, shape (n, parts).
        host: receives the host's time in each launch, ns.
        times: memory for a ``timespec``.
        elapsed: memory for a float.
        stop: set by another thread to end the loop.

    Returns:
        FINISHED, STOPPED, FAILED, or FULL: one of the three arrays of results is full and is to be replaced.
    """
    if _enter(api, state) != 0:
        return FAILED
    if state[FILLED] == 0:
        filled = 0
        while filled < state[DEPTH] and not (filled > 0 and _over(state, _now_ns(system, times), 0)):
            first[filled] = _now_ns(system, times)
            if _start(system, api, calls, 0, state, host, state[HOST_AT], times) != 0:
                return FAILED
            state[HOST_AT] += 1
            filled += 1
        state[FILLED] = filled
    while state[WAITED] < state[ISSUED]:
        if stop[0] != 0:
            return STOPPED
        if state[DONE_AT] == len(done) or state[GPU_AT] == len(gpu) or state[HOST_AT] == len(host):
            return FULL
        answer = _wait(system, api, events, state, stop)
        if answer != 0:
            return answer
        now = _now_ns(system, times)
        state[COMPLETED] += 1
        if not _over(state, now, state[COMPLETED]):
            if _start(system, api, calls, 0, state, host, state[HOST_AT], times) != 0:
                return FAILED
            state[HOST_AT] += 1
            if state[READ] < state[WAITED]:
                if _read_one(api, events, state, gpu, state[GPU_AT], elapsed) != 0:
                    return FAILED
                state[GPU_AT] += 1
        done[state[DONE_AT]] = now
        state[DONE_AT] += 1
    while state[READ] < state[WAITED]:
        if state[GPU_AT] == len(gpu):
            return FULL
        if _read_one(api, events, state, gpu, state[GPU_AT], elapsed) != 0:
            return FAILED
        state[GPU_AT] += 1
    return FINISHED


@_compiled
def _run_one(
    system: Any,
    api: Any,
    calls: Any,
    row: Any,
    events: Any,
    state: Any,
    index: Any,
    last: Any,
    gpu: Any,
    host: Any,
    times: Any,
    elapsed: Any,
    stop: Any,
) -> Any:
    """Run the inference of request ``index`` to completion, and read the times of the one before it, ``last``."""
    if _start(system, api, calls, row, state, host, index, times) != 0:
        return FAILED
    if state[READ] < state[WAITED] and _read_one(api, events, state, gpu, last, elapsed) != 0:
        return FAILED
    return _wait(system, api, events, state, stop)


@_compiled
def open_loop(  # noqa: PLR0911, C901 - one loop, whose exits are its answers
    system: Any,
    api: Any,
    calls: Any,
    events: Any,
    state: Any,
    shared: Any,
    due: Any,
    issued: Any,
    done: Any,
    slot_free: Any,
    served_by: Any,
    gpu: Any,
    host: Any,
    times: Any,
    elapsed: Any,
    stop: Any,
) -> Any:
    """Take the next arrival, wait for it, run it to completion, and so on.

    Args:
        system: see ``closed_loop``.
        api: see ``closed_loop``.
        calls: see ``closed_loop``.
        events: see ``closed_loop``.
        state: see ``closed_loop``.
        shared: what all streams share, shape (SHARED,).
        due: scheduled time of each request, ns.
        issued: receives when it was handed to a stream, ns.
        done: receives when its completion was seen, ns.
        slot_free: receives whether a stream was waiting for it.
        served_by: receives the number of the stream.
        gpu: receives the times of the parts by the device's clock, ms, shape (requests, parts).
        host: receives the host's time in the launch, ns.
        times: see ``closed_loop``.
        elapsed: see ``closed_loop``.
        stop: see ``closed_loop``.

    Returns:
        FINISHED, STOPPED, FAILED, or STEPPED after ``system[STEPS]`` requests.
    """
    if _enter(api, state) != 0:
        return FAILED
    served, last = 0, state[DONE_AT]
    while stop[0] == 0:
        if served == system[STEPS]:
            state[DONE_AT] = last
            return STEPPED
        index = _atomic_add(shared, 0, 1)
        if shared[OVERLOADED] != 0 or index >= len(due):
            break
        now = _now_ns(system, times)
        if now <= due[index]:
            now = _sleep_until_ns(system, times, due[index], stop)
            if stop[0] != 0:
                return STOPPED
            slot_free[index] = 1
        elif now - due[index] > shared[MAX_WAIT_NS]:
            shared[OVERLOADED] = 1
            break
        issued[index] = now
        served_by[index] = state[NUMBER]
        answer = _run_one(system, api, calls, 0, events, state, index, last, gpu, host, times, elapsed, stop)
        if answer != 0:
            return answer
        done[index] = _now_ns(system, times)
        last = index
        served += 1
    if stop[0] != 0:
        return STOPPED
    if state[READ] < state[WAITED] and _read_one(api, events, state, gpu, last, elapsed) != 0:
        return FAILED
    return FINISHED


@_compiled
def _departing(due: Any, first: Any, batch: Any, now: Any) -> Any:
    """Count the arrivals that leave together: ``dynamic_batching.Rule.departing``."""
    end = min(first + batch, len(due))
    count = 0
    while first + count < end and due[first + count] <= now:
        count += 1
    return max(count, 1)


@_compiled
def gather_loop(  # noqa: PLR0911, PLR0912, C901 - one loop, whose exits are its answers
    system: Any,
    api: Any,
    calls: Any,
    rows: Any,
    events: Any,
    state: Any,
    shared: Any,
    due: Any,
    issued: Any,
    done: Any,
    slot_free: Any,
    served_by: Any,
    ready: Any,
    ran_with: Any,
    gpu: Any,
    host: Any,
    times: Any,
    elapsed: Any,
    stop: Any,
) -> Any:
    """Gather the next batch behind a lock, run it to completion, and so on.

    Args:
        system: see ``closed_loop``.
        api: see ``closed_loop``.
        calls: the calls of each size that a batch can have, shape (sizes, places, steps, 5).
        rows: row of ``calls`` for a batch of each number of requests, shape (batch + 1,).
        events: see ``closed_loop``.
        state: see ``closed_loop``.
        shared: see ``open_loop``.
        due: see ``open_loop``.
        issued: see ``open_loop``.
        done: see ``open_loop``.
        slot_free: see ``open_loop``.
        served_by: see ``open_loop``.
        ready: receives when the batch of each request was to leave, ns.
        ran_with: receives the requests in the batch of each request.
        gpu: as in ``open_loop``, at the first request of each batch.
        host: as in ``open_loop``, at the first request of each batch.
        times: see ``closed_loop``.
        elapsed: see ``closed_loop``.
        stop: see ``closed_loop``.

    Returns:
        FINISHED, STOPPED, FAILED, or STEPPED after ``system[STEPS]`` batches.
    """
    if _enter(api, state) != 0:
        return FAILED
    served, last, batch = 0, state[DONE_AT], shared[BATCH]
    while stop[0] == 0:
        if served == system[STEPS]:
            state[DONE_AT] = last
            return STEPPED
        free = _now_ns(system, times)
        while _atomic_exchange(shared, 2, 1) != 0:
            _pause()
            if stop[0] != 0:
                return STOPPED
        first = shared[NEXT]
        if shared[OVERLOADED] != 0 or first >= len(due):
            _atomic_exchange(shared, 2, 0)
            break
        leaves = due[first] + shared[BATCH_WAIT_NS]
        if first + batch - 1 < len(due) and due[first + batch - 1] < leaves:
            leaves = due[first + batch - 1]
        now = _now_ns(system, times)
        if now <= leaves:
            now = _sleep_until_ns(system, times, leaves, stop)
        if free > leaves and now - leaves > shared[MAX_WAIT_NS]:
            shared[OVERLOADED] = 1
            _atomic_exchange(shared, 2, 0)
            break
        count = _departing(due, first, batch, now)
        shared[NEXT] = first + count
        _atomic_exchange(shared, 2, 0)
        if stop[0] != 0:
            return STOPPED
        answer = _run_one(system, api, calls, rows[count], events, state, first, last, gpu, host, times, elapsed, stop)
        if answer != 0:
            return answer
        end = _now_ns(system, times)
        for index in range(first, first + count):
            issued[index] = now
            ready[index] = leaves
            ran_with[index] = count
            served_by[index] = state[NUMBER]
            slot_free[index] = 1 if free <= leaves else 0
            done[index] = end
        last = first
        state[BATCHES] += 1
        served += 1
    if stop[0] != 0:
        return STOPPED
    if state[READ] < state[WAITED] and _read_one(api, events, state, gpu, last, elapsed) != 0:
        return FAILED
    return FINISHED


def run_closed_loop(block: Any) -> Any:
    """Run ``closed_loop`` on the arrays of a block, which has the address and the shape of each in turn."""
    return closed_loop(
        _words(block, 0),
        _words(block, 2),
        _table_sets(block, 4),
        _table(block, 9),
        _words(block, 12),
        _words(block, 14),
        _words(block, 16),
        _rows(block, 18),
        _words(block, 21),
        _words(block, 23),
        _floats(block, 25),
        _words(block, 27),
    )


def run_open_loop(block: Any) -> Any:
    """Run ``open_loop`` on the arrays of a block."""
    return open_loop(
        _words(block, 0),
        _words(block, 2),
        _table_sets(block, 4),
        _table(block, 9),
        _words(block, 12),
        _words(block, 14),
        _words(block, 16),
        _words(block, 18),
        _words(block, 20),
        _bytes(block, 22),
        _shorts(block, 24),
        _rows(block, 26),
        _words(block, 29),
        _words(block, 31),
        _floats(block, 33),
        _words(block, 35),
    )


def run_gather_loop(block: Any) -> Any:
    """Run ``gather_loop`` on the arrays of a block."""
    return gather_loop(
        _words(block, 0),
        _words(block, 2),
        _table_sets(block, 4),
        _words(block, 9),
        _table(block, 11),
        _words(block, 14),
        _words(block, 16),
        _words(block, 18),
        _words(block, 20),
        _words(block, 22),
        _bytes(block, 24),
        _shorts(block, 26),
        _words(block, 28),
        _ints(block, 30),
        _rows(block, 32),
        _words(block, 35),
        _words(block, 37),
        _floats(block, 39),
        _words(block, 41),
    )


def compile_loop(name: str) -> tuple[str, str]:
    """Compile one loop.

    Args:
        name: ``closed_loop``, ``open_loop`` or ``gather_loop``.

    Returns:
        Name of the C function, which takes the address of a block and returns an int64, and LLVM's assembly of the
        module that has it.
    """
    entry = {"closed_loop": run_closed_loop, "open_loop": run_open_loop, "gather_loop": run_gather_loop}[name]
    function = cfunc(types.int64(types.int64), error_model="numpy", _nrt=False)(entry)
    return str(function._wrapper_name), str(function.inspect_llvm())  # noqa: SLF001 - numba has no public name of it
