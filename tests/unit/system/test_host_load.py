"""Use of the cores by other programs and by our own processes, against real processes that spin."""

import os
import subprocess
import sys
import time

import pytest

from sweep.system import HostLoad

SPIN = "import time\nend = time.perf_counter() + 30\nwhile time.perf_counter() < end: pass"
ELSEWHERE = (
    f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SPIN!r}], stdout=subprocess.DEVNULL).pid)"
)


def used_by(process) -> float:
    """CPU time of a process, s, as the kernel counts it."""
    fields = process.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("whose", ["own", "other"])
def test_the_time_of_a_process_counts_as_ours_or_as_that_of_others(whose, tmp_path) -> None:
    """The kernel's own count of that process is the truth: how much it gets depends on the neighbours."""
    if whose == "own":
        child = subprocess.Popen([sys.executable, "-c", SPIN])
        pid = child.pid
    else:  # its parent has ended, so that it is no descendant of this process
        pid = int(subprocess.run([sys.executable, "-c", ELSEWHERE], stdout=subprocess.PIPE, check=True).stdout)
    try:
        stat = type(tmp_path)(f"/proc/{pid}/stat")
        with HostLoad() as host:
            start, before = time.perf_counter_ns(), used_by(stat)
            time.sleep(0.6)
            end, after = time.perf_counter_ns(), used_by(stat)
        own, other = host.shares(start, end)
    finally:
        os.kill(pid, 9)
        if whose == "own":
            child.wait()
    share = (after - before) / ((end - start) / 1e9 * len(os.sched_getaffinity(0)))
    assert share > 0, "the process got no time at all"
    assert own >= share - 0.05 if whose == "own" else other >= share - 0.05
    assert own <= 0.1 if whose == "other" else own <= share + 0.1
    assert 0 <= own + other <= 1


def test_a_window_outside_the_readings_has_no_shares() -> None:
    with HostLoad() as host:
        pass
    now = time.perf_counter_ns()
    assert host.shares(now, now + 10**9) is None
    assert host.shares(1000, 2000) is None, "the clock of a simulated device"
