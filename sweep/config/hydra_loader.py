"""Hydra's composition of YAMLs and words, without Hydra's runner.

A YAML may come from anywhere. Hydra's runner instantiates the callbacks, launchers and log handlers that a YAML names,
makes its folders and sets its variables; here it is never started. A YAML that sets such keys is refused, so that
nobody waits for what will not happen, and so that ``--help`` and ``--cfg``, which are Hydra's own, see none of them.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import OmegaConf

from sweep.config import yaml_limits
from sweep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hydra.core.config_loader import ConfigLoader
    from hydra.core.config_search_path import ConfigSearchPath
    from omegaconf import DictConfig

MAIN = "config"
_RESOLVERS = ("env", "create", "decode", "deprecated", "select", "dict.keys", "dict.values")
_MOST_TEXTS = 16  # that are made of others, two in each: none grows beyond 2^8 times the longest
_MOST_IN_ONE = 2
_MADE_OF = "${"


class _OwnFolder(SearchPathPlugin):
    """Adds the folder of ``--config-dir`` to where YAMLs are looked for."""

    folder: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.append(provider="command-line", path=f"file://{self.folder}")


@contextmanager
def composing(conf: Path, own: Path | None) -> Iterator[ConfigLoader]:
    """Hydra's loader over the YAMLs of ``conf`` and of the user's ``own`` folder.

    Raises:
        ConfigError: a YAML cannot be read in bounded time and memory.
    """
    for folder in (conf, own):
        if folder is not None:
            yaml_limits.check(folder)
    _plain_run(conf)  # Hydra knows one set of folders at a time
    with _loading(conf, own) as loader:
        yield loader


@contextmanager
def _loading(conf: Path, own: Path | None) -> Iterator[ConfigLoader]:
    plugins = Plugins.instance()
    if _OwnFolder not in plugins.discover(SearchPathPlugin):
        plugins.register(_OwnFolder)
    _OwnFolder.folder = own
    try:
        with initialize_config_dir(config_dir=str(conf), job_name="sweep", version_base="1.3"):
            for name in _RESOLVERS:  # a YAML has no business with this machine's environment variables
                OmegaConf.clear_resolver(f"oc.{name}")
            OmegaConf.clear_resolver("hydra")  # it reads the config of a command that Hydra ran in this process before
            yield GlobalHydra.instance().config_loader()
    finally:
        _OwnFolder.folder = None


def master(loader: ConfigLoader, conf: Path, words: Sequence[str]) -> DictConfig:
    """The config before its sweep: what is not swept, and what an experiment sweeps (``hydra.sweeper.params``).

    Raises:
        ConfigError: a YAML sets how Hydra runs.
    """
    config = _composed(loader, words)
    expected = _plain_run(conf)
    for name, value in _run(config).items():
        if value != expected.get(name):
            raise ConfigError(
                f"hydra.{name}: a YAML sets it, and how Hydra runs is fixed here; hydra.sweeper.params is a sweep's own"
            )
    return config


def is_hydras(key: str) -> bool:
    """Whether an override's key is one of Hydra's own."""
    return key.lstrip("+~").replace("@", ".").replace("/", ".").replace("=", ".").split(".")[0] == "hydra"


def check_texts(config: DictConfig) -> None:
    """Refuse values that are made of so many others that they may grow beyond all bounds.

    Raises:
        ConfigError: there are such.
    """
    texts = list(_texts(OmegaConf.to_container(config, resolve=False)))
    most = max(texts, key=lambda text: text.count(_MADE_OF), default="")
    if most.count(_MADE_OF) > _MOST_IN_ONE or sum(_MADE_OF in text for text in texts) > _MOST_TEXTS:
        raise ConfigError(
            f"{most[:60]}: at most {_MOST_TEXTS} values may be made of others, each of at most {_MOST_IN_ONE} of them"
        )


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _texts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value)


def _composed(loader: ConfigLoader, words: Sequence[str]) -> DictConfig:
    return loader.load_configuration(config_name=MAIN, overrides=list(words), run_mode=RunMode.MULTIRUN)


@functools.cache
def _plain_run(conf: Path) -> dict[str, Any]:
    """How Hydra runs where nothing else is said."""
    with _loading(conf, None) as loader:
        return _run(_composed(loader, ()))


def _run(config: DictConfig) -> dict[str, Any]:
    """The ``hydra`` node, less what it says of the words and of the sweep."""
    found: Any = OmegaConf.to_container(config.hydra, resolve=False)
    for name in ("overrides", "runtime"):
        del found[name]
    for name, inner in (("job", "override_dirname"), ("sweeper", "params")):
        if isinstance(found[name], dict):
            found[name].pop(inner, None)
    return dict(found)
