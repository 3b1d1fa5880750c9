"""Describe a run before it is written: a record with its files, its params, tags, metrics and datasets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mlflow.entities import DatasetInput

    from sweep.report.mlflow.record_mapping import Value
    from sweep.storage import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFile:
    """Hold a record with what is attached to its run.

    Attributes:
        record: the record.
        content: bytes of its file.
        files: files about its engine, which may be missing.
        compared: figures that follow from other records of the sweep too, by the name of the metric.
    """

    record: Record
    content: bytes
    files: Sequence[Path] = ()
    compared: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """Describe a set of samples, which MLflow calls a dataset.

    Attributes:
        name: what it is.
        digest: of its content, or of its description; at most 36 characters.
        source: where it comes from.
        context: what the run did with it: ``evaluation`` or ``calibration``.
    """

    name: str
    digest: str
    source: str
    context: str

    def entity(self) -> DatasetInput:
        """Return MLflow's object of it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name=self.name, digest=self.digest, source_type="sweep", source=self.source)
        return DatasetInput(dataset, [InputTag("mlflow.data.context", self.context)])


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """Hold everything of a run.

    Attributes:
        name: name of the run.
        status: MLflow's status of it.
        start_ms: its start, Unix milliseconds, which is also the time of its metrics.
        end_ms: its end, Unix milliseconds.
        tags: its tags.
        params: its params.
        metrics: its metrics.
        datasets: samples that it used.
        source: the record, for the artifacts.
    """

    name: str
    status: str
    start_ms: int
    end_ms: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Sequence[Value]
    datasets: Sequence[SampleSet]
    source: RecordFile
