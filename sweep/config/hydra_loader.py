"""Compose YAML files and overrides as Hydra does, without Hydra's runner.

A YAML may come from anywhere. Hydra's runner instantiates the callbacks, launchers and log handlers that a YAML names,
makes its folders and sets its environment variables; here it is never started. A YAML that sets such keys is refused:
a sweep would ignore them, and ``--help`` and ``--cfg``, which Hydra itself answers, would read them.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import OmegaConf

from sweep.config import yaml_limits
from sweep.errors import ConfigError, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hydra.core.config_loader import ConfigLoader
    from hydra.core.config_search_path import ConfigSearchPath
    from omegaconf import DictConfig

MAIN = "config"
_RESOLVERS = ("env", "create", "decode", "deprecated", "select", "dict.keys", "dict.values")
_MAX_INTERPOLATED = 16  # values that refer to others; with two in each, none grows beyond 2^8 times the longest
_MAX_REFERENCES = 2  # in one value
_REFERENCE = "${"


class _UserFolder(SearchPathPlugin):
    """Add the folder of ``--config-dir`` to Hydra's search path."""

    folder: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.append(provider="command-line", path=f"file://{self.folder}")


@contextmanager
def open_loader(conf: Path, config_dir: Path | None) -> Iterator[ConfigLoader]:
    """Open Hydra's loader over the YAML files of conf/ and of the user.

    Args:
        conf: the folder conf/.
        config_dir: the folder of ``--config-dir``; None for none.

    Raises:
        ConfigError: a YAML cannot be read in bounded time and memory.
    """
    for folder in (conf, config_dir):
        if folder is not None:
            yaml_limits.check(folder)
    _default_hydra_node(conf)  # cached before the loader opens, as Hydra has one search path at a time
    with _initialized(conf, config_dir) as loader:
        yield loader


@contextmanager
def _initialized(conf: Path, config_dir: Path | None) -> Iterator[ConfigLoader]:
    _share_config_store()
    plugins = Plugins.instance()
    if _UserFolder not in plugins.discover(SearchPathPlugin):
        plugins.register(_UserFolder)
    _UserFolder.folder = config_dir
    try:
        with initialize_config_dir(config_dir=str(conf), job_name="sweep", version_base="1.3"):
            for name in _RESOLVERS:  # oc.env would read this machine's environment variables
                OmegaConf.clear_resolver(f"oc.{name}")
            OmegaConf.clear_resolver("hydra")  # it would read the config of an earlier command of this process
            yield GlobalHydra.instance().config_loader()
    finally:
        _UserFolder.folder = None


def _share_config_store() -> None:
    """Let Hydra copy its loader without copying the registered schema, which was a fifth of what a command composes.

    There is one store, and it copies what it gives out.
    """
    store = ConfigStore.instance()
    store.__dict__["__deepcopy__"] = lambda _: store


def compose_master(loader: ConfigLoader, conf: Path, overrides: Sequence[str]) -> DictConfig:
    """Return the config before its sweep: the values that are not swept, and ``hydra.sweeper.params``.

    Args:
        loader: of `open_loader`.
        conf: the folder conf/.
        overrides: of the command line; those that sweep stay in ``hydra.overrides.task``.

    Raises:
        ConfigError: a YAML sets how Hydra runs.
    """
    config = _compose(loader, overrides)
    default = _default_hydra_node(conf)
    for name, value in _hydra_node(config).items():
        if value != default.get(name):
            raise ConfigError(
                f"hydra.{name}: a YAML sets it, and how Hydra runs is fixed here; hydra.sweeper.params is a sweep's own"
            )
    return config


def is_hydra_key(override: str) -> bool:
    """Tell whether an override, or its key alone, sets one of Hydra's own keys."""
    return override.lstrip("+~").replace("@", ".").replace("/", ".").replace("=", ".").split(".")[0] == "hydra"


def check_interpolations(config: DictConfig) -> None:
    """Refuse a config whose values refer to so many others (``${...}``) that they may grow without bound.

    Raises:
        ConfigError: one value has too many references, or too many values have one.
    """
    texts = list(_texts(OmegaConf.to_container(config, resolve=False)))
    most = max(texts, key=lambda text: text.count(_REFERENCE), default="")
    if most.count(_REFERENCE) > _MAX_REFERENCES or sum(_REFERENCE in text for text in texts) > _MAX_INTERPOLATED:
        raise ConfigError(
            f"{shorten(most, 60)}: at most {_MAX_INTERPOLATED} values may be made of others, "
            f"each of at most {_MAX_REFERENCES} of them"
        )


def has_interpolations(config: DictConfig) -> bool:
    """Tell whether a value of the config refers to others."""
    return any(_REFERENCE in text for text in _texts(OmegaConf.to_container(config, resolve=False)))


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _texts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value)


def _compose(loader: ConfigLoader, overrides: Sequence[str]) -> DictConfig:
    return loader.load_configuration(config_name=MAIN, overrides=list(overrides), run_mode=RunMode.MULTIRUN)


@functools.cache
def _default_hydra_node(conf: Path) -> dict[str, Any]:
    """Return the ``hydra`` node of conf/ alone, without overrides or YAML files of a user."""
    with _initialized(conf, None) as loader:
        return _hydra_node(_compose(loader, ()))


def _hydra_node(config: DictConfig) -> dict[str, Any]:
    """Return the ``hydra`` node without the parts that hold overrides and the sweep."""
    node: Any = OmegaConf.to_container(config.hydra, resolve=False)
    del node["overrides"]
    for name in ("choices", "config_sources", "cwd"):  # of the command line and of this process
        node["runtime"].pop(name, None)
    for name, inner in (("job", "override_dirname"), ("sweeper", "params")):
        if isinstance(node[name], dict):
            node[name].pop(inner, None)
    return dict(node)
