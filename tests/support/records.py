"""Make the tables of records for tests, whole as the schema asks for them."""


def latency_ms(**known):
    """A summary of latencies; percentiles that are not given are unknown."""
    return {name: known.get(name) for name in ("mean", "p50", "p90", "p95", "p99", "p999", "max")}


def point(offered_ips, latency=None, verdict="ok", **changes):
    """One rate of the open loop, with ``latency`` by percentile in ms."""
    return {
        "offered_ips": offered_ips,
        "achieved_ips": offered_ips,
        "requests": 1000,
        "latency_ms": latency_ms(**(latency or {})),
        "interval": {"p50": None, "p99": None},
        "issue_lag_ms": 0.01,
        "verdict": verdict,
        "reason": None,
        **changes,
    }


def peak(ips, interval=None, verdict="ok", **changes):
    """A closed loop."""
    return {"ips": ips, "interval": interval, "verdict": verdict, "reason": None, **changes}
