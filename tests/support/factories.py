"""Make configs and variants for tests."""

from sweep.config.schema import BackendConfig, Config, ScriptConfig


def config(**values):
    """A config with values at dotted keys, ``load__min_s`` for ``load.min_s``."""
    made = Config(backend=BackendConfig(name="simulated", script=ScriptConfig()))
    for key, value in values.items():
        *path, last = key.split("__")
        target = made
        for part in path:
            target = getattr(target, part)
        setattr(target, last, value)
    return made
