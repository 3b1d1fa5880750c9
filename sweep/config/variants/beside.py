"""Make the networks beside the measured one from their tables of settings."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from sweep import spec
from sweep.backends import registry
from sweep.config import compose, constraints
from sweep.config.conf_files import choices
from sweep.config.value_text import value_text
from sweep.errors import ConfigError, shorten
from sweep.loadgen import PROCESSES
from sweep.spec import Neighbour, Sharing, parse_sharing, with_share

if TYPE_CHECKING:
    from sweep.config.schema import Config
    from sweep.spec import SessionAxes, Variant

_ALL_PERCENT = 100
_FORM = "give tables of settings, as in [{model:bert_base,batch:1,rate:200}]"
_DEFAULT = "processes"
_WHOLE_TABLES = ("model.inputs", "load.shapes")


def session_beside(config: Config, axes: SessionAxes) -> SessionAxes:
    """Return `axes` with the networks beside the measured one, and with its share.

    Raises:
        ConfigError: a table is refused, or the networks cannot share the device as requested; one line.
    """
    if config.together is not None:
        raise ConfigError(
            "together: stands in a YAML of Hydra's form, which cannot be expanded; write the file as one that "
            "`sweep run` takes, or type together= on the command line"
        )
    if config.beside is None:
        if config.sharing is not None:
            raise ConfigError(f"sharing={config.sharing}: there is nothing to share with; name two models in together=")
        return axes
    refuse_load(config)
    neighbours = tuple(_neighbour(table, config) for table in tables(config.beside, "beside"))
    sharing = _checked(config.sharing or _DEFAULT, 1 + len(neighbours), config)
    _refuse_contradictions(axes, neighbours)
    return with_share(dataclasses.replace(axes, beside=neighbours, sharing=sharing.text), sharing)


def refuse_load(config: Config) -> None:
    """Refuse a load that no network beside others can have.

    Raises:
        ConfigError: it has one; one line.
    """
    load = config.load
    if load.shapes is not None or load.kind == "trace" or config.batching.max_wait_ms is not None:
        raise ConfigError(
            "beside: load.shapes, load=trace and batching.max_wait_ms are for one network alone; leave them out"
        )


def tables(value: Any, key: str, least: int = 1) -> list[dict[str, Any]]:
    """Return a list of tables of settings, their inner tables as dotted keys.

    Args:
        value: as typed.
        key: that has it, for the message.
        least: fewest tables.

    Raises:
        ConfigError: it is no such list.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict) and item for item in value):
        raise ConfigError(f"{key}={shorten(str(value), 60)}: {_FORM}")
    if len(value) < least:
        raise ConfigError(f"{key}: {len(value)} model is nothing side by side; name {least} or more")
    return [_settings(item, key) for item in value]


def _settings(table: dict[str, Any], key: str) -> dict[str, Any]:
    """Return one table with dotted keys; ``rate`` as the load that it stands for."""
    settings: dict[str, Any] = {}
    for name, value in table.items():
        flat = isinstance(value, dict) and name not in {*_WHOLE_TABLES, "slo"}
        settings |= constraints.flat(value, f"{name}.") if flat else {str(name): value}
    if "model" not in settings and "model.path" not in settings and "model.name" not in settings:
        raise ConfigError(f"{key}: {shorten(value_text(table), 60)} names no model; add model:NAME")
    rate = settings.pop("rate", None)
    if rate is not None:
        if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
            raise ConfigError(f"{key}: rate={rate}: a rate is a number above 0, samples/s")
        if "load" in settings and settings["load"] not in PROCESSES:
            raise ConfigError(f"{key}: rate={rate} and load={settings['load']}: a rate needs an arrival process")
        settings = {"load": "poisson", **settings, "load.rates_ips": [float(rate)]}
    return settings


def words(settings: dict[str, Any]) -> tuple[str, ...]:
    """Return settings as words of the command line, without the SLO of the network."""
    own = {key: value for key, value in settings.items() if key != "slo"}
    return tuple(f"{'+' if isinstance(value, dict) else ''}{key}={value_text(value)}" for key, value in own.items())


def _neighbour(settings: dict[str, Any], config: Config) -> Neighbour:
    backend = config.backend.name
    resolved = registry.resolve(backend)[0]
    if "backend" not in settings and "backend.name" not in settings:
        settings = {("backend" if backend in choices("backend") else "backend.name"): backend, **settings}
    variant = _variant(words(settings), config.results)
    if variant.backend != resolved:
        raise ConfigError(
            f"beside: {variant.onnx.model.name} has backend {variant.backend}, the measured network {resolved}: "
            "networks side by side have one backend"
        )
    return Neighbour(
        onnx=variant.onnx,
        engine=variant.engine,
        session=variant.session,
        load=variant.load,
        slo=_slo_text(settings.get("slo"), variant.onnx.model.name),
    )


@functools.lru_cache(maxsize=1024)  # combinations share neighbours, and composing one costs 0.1 s
def _variant(settings: tuple[str, ...], results: str) -> Variant:
    from sweep.config.variants import from_config  # which imports this module

    request = compose.read((), of_file=settings)
    assert request is not None  # noqa: S101 - for mypy: only flags such as --help give no request
    if len(request.configs) != 1:
        raise ConfigError(f"beside: {' '.join(settings)}: a table stands for one network; sweep outside of it")
    config = request.configs[0]
    refuse_load(config)
    return from_config(dataclasses.replace(config, results=results))


def _slo_text(limits: Any, model: str) -> str | None:
    """Return the SLO of one network as ``p99_ms:20``; None without one."""
    if limits is None:
        return None
    names = [f"{name}_ms" for name in spec.PERCENTILES]
    if not isinstance(limits, dict) or len(limits) != 1 or next(iter(limits)) not in names:
        raise ConfigError(f"slo of {model}: give one limit, as in slo:{{p99_ms:20}}; there are: {', '.join(names)}")
    name, limit = next(iter(limits.items()))
    if isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0:
        raise ConfigError(f"slo of {model}: {name}={limit}: a limit is a number above 0, ms")
    return f"{name}:{spec.plain_text(float(limit))}"


def _checked(text: str, count: int, config: Config) -> Sharing:
    """Return how `count` networks share the device, checked."""
    sharing = parse_sharing(text)
    if sharing is None:
        form = "processes, streams, mps:75/25 (per cent) or green:64/32 (SMs)"
        raise ConfigError(f"sharing={text}: no such way to share; there are: {form}")
    backend = registry.get(registry.resolve(config.backend.name)[0])
    needs = {"mps": "mps", "green": "sm_count"}.get(sharing.kind)
    if needs is not None and needs not in backend.honours:
        raise ConfigError(
            f"sharing={text}: backend {backend.name} has no {'MPS' if sharing.kind == 'mps' else 'green contexts'}; "
            "sharing=processes or sharing=streams runs there"
        )
    if not sharing.shares:
        return sharing
    if len(sharing.shares) != count:
        raise ConfigError(f"sharing={text}: {len(sharing.shares)} shares for {count} networks; give one for each")
    if min(sharing.shares) < 1:
        raise ConfigError(f"sharing={text}: a share is 1 or more")
    if sharing.kind == "mps" and sum(sharing.shares) > _ALL_PERCENT:
        raise ConfigError(
            f"sharing={text}: the shares add up to {sum(sharing.shares)} per cent; they may have {_ALL_PERCENT}"
        )
    return sharing


def _refuse_contradictions(axes: SessionAxes, neighbours: tuple[Neighbour, ...]) -> None:
    for session in (axes, *(neighbour.session for neighbour in neighbours)):
        if session.clients > 1:
            raise ConfigError(f"clients={session.clients}: networks side by side have one process each; leave it out")
        for name in ("mps", "sm_count"):
            if getattr(session, name) is not None:
                form = "mps:75/25" if name == "mps" else "green:64/32"
                raise ConfigError(
                    f"{name}={getattr(session, name)}: networks side by side have their shares from sharing=, as in "
                    f"sharing={form}"
                )
        if session.beside is not None:
            raise ConfigError("beside: a network beside another has none beside itself; list all of them in one place")
