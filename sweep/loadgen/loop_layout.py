"""Name the places in the arrays that Python and the compiled loops share, and the answers of a loop."""

from __future__ import annotations

# answers of a loop
FINISHED, STOPPED, FAILED, FULL, STEPPED = 0, 1, 2, 3, 4

# places in ``system``, what is shared by all streams
CLOCK, SLEEP, MARGIN_NS, POLL, STEPS = 0, 1, 2, 3, 4
SYSTEM = 5

# places in ``api``, the functions of one stream
SYNCHRONISE, QUERY, NOT_READY, ELAPSED, ENTER, ENTER_ARGUMENT, LAUNCH = 0, 1, 2, 3, 4, 5, 6
API = 7

# places in ``state``, what a loop on one stream remembers between two calls of it
ISSUED, WAITED, READ = 0, 1, 2  # inferences enqueued, seen complete and read since the stream was made
FILLED, COMPLETED, DEPTH, NUMBER = 3, 4, 5, 6
DONE_AT, GPU_AT, HOST_AT = 7, 8, 9  # next free place of each array of results
FAILED_CALL, FAILURE = 10, 11  # index of the call, and what it returned
START_NS, EARLIEST_NS, LATEST_NS, MIN_COUNT = 12, 13, 14, 15
BATCHES = 16
STATE = 17

# calls that a failure names, beside the steps of an inference, which count from 0
CALL_WAIT, CALL_ELAPSED, CALL_ENTER = -1, -2, -3

# places in ``shared``, what all streams of an open loop share
NEXT, OVERLOADED, LOCK, MAX_WAIT_NS, BATCH, BATCH_WAIT_NS, PARTIAL = 0, 1, 2, 3, 4, 5, 6
SHARED = 7

BLOCK = 64  # most words of a block: the address and the shape of each array that a loop works on
