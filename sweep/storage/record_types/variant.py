"""Type the keys of a variant that readers use."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from sweep.storage.record_types.values import Count


class RecipeFields(TypedDict, total=False):
    """Type the keys that every precision recipe has; its further keys are those of ``sweep.spec.Precision``.

    Attributes:
        name: name of the recipe.
        dtype: type that the graph is to compute in.
    """

    name: str
    dtype: str


class DataFields(TypedDict):
    """Identify the user's own data, for calibration, for the score or as inputs.

    Attributes:
        name: name of the user's function; None for files.
        path: path of the files; None for a function.
    """

    name: str | None
    path: str | None


class PlanFields(TypedDict):
    """Identify a plan that was built elsewhere; its further keys are those of ``sweep.spec.BuiltPlan``.

    Attributes:
        path: path of the file.
        digest: sha256 of the file.
    """

    path: str
    digest: str


class LoadFields(TypedDict, total=False):
    """Type the keys of the load that readers use; its further keys are those of ``sweep.spec.LoadAxes``.

    Attributes:
        kind: kind of the load.
        builds: engines that were built afresh; None where one came from the cache.
        depth: requests that a stream of the closed loop keeps in flight.
        trace: path of recorded arrivals.
        labels: labelled data.
        samples: the user's own inputs.
    """

    kind: str
    builds: Count | None
    depth: Count
    trace: str | None
    labels: DataFields | None
    samples: DataFields | None


class VariantFields(TypedDict):
    """Type the keys of a variant that readers use; its further keys are the axes (``sweep.spec.flat``).

    Attributes:
        label: name of the variant within its sweep.
        backend: name of the backend.
        model: name of the network.
        precision: name of the precision.
        precision_recipe: how the graph gets that precision.
        calibration: the user's own data for calibration.
        plugins: libraries of plugins that were loaded; their paths alone in records of the first releases.
        plan: the plan that was loaded in place of an engine that is built; None where one was built.
        batch: samples of a request.
        streams: streams that run at the same time.
        clients: processes that run at the same time.
        sharing: how the device is shared with networks beside this one; None without them.
        beside: networks that run at the same time, each with its axes; None for none.
        repeats: starts of each engine.
        load: how it is driven.
    """

    label: str
    backend: NotRequired[str]
    model: NotRequired[str]
    precision: NotRequired[str]
    precision_recipe: NotRequired[RecipeFields]
    calibration: NotRequired[DataFields | None]
    plugins: NotRequired[list[PlanFields | str] | None]
    plan: NotRequired[PlanFields | None]
    batch: NotRequired[Count]
    streams: NotRequired[Count | None]
    clients: NotRequired[Count | None]
    sharing: NotRequired[str | None]
    beside: NotRequired[list[dict[str, Any]] | None]
    repeats: NotRequired[Count]
    load: NotRequired[LoadFields | None]
