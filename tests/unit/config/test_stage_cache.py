"""A part of a variant is made once for the configs that agree in what it reads, and is what it would be alone."""

from __future__ import annotations

import dataclasses

import pytest

from sweep import spec
from sweep.config import compose, variants
from sweep.config.schema import Config
from sweep.config.variants.stage_cache import StageCache
from sweep.runner import plan

GRIDS = (
    ("backend=simulated", "batch=1,8,1", "streams=1,2", "load.depth=1,3", "load=closed", "seed=0,1"),
    ("batch=1,8", "batching.max_wait_ms=null,1,2", "load=curve,poisson", "load.rates_ips=[1,2]", "load.min_s=1,1.5"),
    ("profile=range", "range.most=8,16", "batch=1,8", "precision=int8", "precision.calibration_batches=1,2", "seed=2"),
)


@pytest.mark.parametrize("words", GRIDS)
def test_variants_and_keys_of_a_grid_are_those_of_each_config_alone(words) -> None:
    request = compose.read(words)
    assert request is not None
    alone = [variants.from_config(config) for config in request.configs]
    together = list(variants.from_configs(request.configs))
    assert together == alone
    keys = spec.KeyMaker()
    expected = [(spec.variant_key(variant), spec.engine_key(variant)) for variant in alone]
    assert [keys.keys(variant) for variant in together] == expected
    made, each = plan.make(together), plan.make(alone)
    assert [(work.key, work.label) for work in made.works] == [(work.key, work.label) for work in each.works]


def test_variants_share_the_parts_that_do_not_differ() -> None:
    request = compose.read(["backend=simulated", "batch=range(1,21)", "streams=range(1,11)"])
    assert request is not None
    made = list(variants.from_configs(request.configs))
    counts = {name: len({id(getattr(variant, name)) for variant in made}) for name in ("engine", "session", "load")}
    assert (len(made), counts) == (200, {"engine": 20, "session": 10, "load": 1})


def test_a_part_is_made_again_when_a_value_that_it_read_differs_and_only_then() -> None:
    calls = []

    def part(config: Config) -> str:
        calls.append(config)
        return f"{config.batch}" if config.batch < 8 else f"{config.batch} of {config.streams}"

    cache = StageCache(part)
    base = Config()
    asked = [(1, 1), (1, 2), (8, 1), (8, 2), (1, 3), (8, 1)]
    configs = [dataclasses.replace(base, batch=batch, streams=streams) for batch, streams in asked]
    assert [cache(config) for config in configs] == ["1", "1", "8 of 1", "8 of 2", "1", "8 of 1"]
    assert len(calls) == 3


def test_an_error_is_not_cached() -> None:
    def refuse(config: Config) -> str:
        raise ValueError(config.batch)

    cache = StageCache(refuse)
    for _ in range(2):
        with pytest.raises(ValueError, match="1"):
            cache(Config())
