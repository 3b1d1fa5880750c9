"""Give MLflow a comparison: its counts as metrics, the summary as description, table and page as files."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from sweep.errors import printable_line
from sweep.report.compare.json_output import as_json
from sweep.report.compare.markdown import as_markdown
from sweep.report.compare.page import as_page
from sweep.report.compare.rows import Outcome
from sweep.report.mlflow import Content, record_comparison

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.report.compare.gates import Failure
    from sweep.report.compare.rows import RunComparison
    from sweep.report.mlflow import ComparisonRun

_MOST_CHARACTERS = 4_900  # of the description, which is a tag


def to_mlflow(comparison: RunComparison, failed: Sequence[Failure], uri: str, experiment: str) -> ComparisonRun:
    """Record a comparison in an experiment of MLflow.

    Args:
        comparison: the comparison.
        failed: rows that fail a gate.
        uri: MLflow's store.
        experiment: name of the experiment.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    ratios = [row.change.ratio for row in comparison.rows if row.change is not None]
    counts = {
        "compare/slower": comparison.count(Outcome.SLOWER),
        "compare/faster": comparison.count(Outcome.FASTER),
        "compare/not_told_apart": comparison.count(Outcome.SAME),
        "compare/not_compared": comparison.count(Outcome.INCOMPARABLE),
        "compare/failed": len({id(failure.row) for failure in failed}),
    }
    metrics = {name: float(count) for name, count in counts.items()}
    if ratios:
        metrics |= {"compare/ratio_median": statistics.median(ratios), "compare/ratio_least": min(ratios)}
    content = Content(
        old=printable_line(comparison.old),
        new=printable_line(comparison.new),
        pairs=[(row.old, row.new) for row in comparison.rows],
        metrics=metrics,
        text=as_markdown(comparison, failed, most_characters=_MOST_CHARACTERS),
        files={
            "comparison.json": as_json(comparison, failed),
            "comparison.md": as_markdown(comparison, failed).encode(),
            "comparison.html": as_page(comparison, failed),
        },
    )
    return record_comparison(uri, experiment, content)
