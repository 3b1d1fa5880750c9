"""Locate labelled data: the files or the function that a key names, their digest, the class of each picture."""

from __future__ import annotations

import dataclasses
import hashlib
import stat
from pathlib import Path

from sweep.errors import ConfigError, LabelError
from sweep.models.datasets import images
from sweep.spec import LabelledData
from sweep.system import regular_files, user_code

KEY = "model.labels"
_KINDS = "an .npz of inputs and labels, images:FOLDER with a folder of pictures a class, or package.module:function"
_NUMBERS = ": where some are missing, name each folder by the number of its class, from 0"


def parse_labels(text: str, output: str, classes: int | None) -> LabelledData:
    """Parse ``model.labels=text`` and compute the digest of the content that it names.

    Args:
        text: the key's value.
        output: that is scored.
        classes: of that output; None where the file does not say.

    Raises:
        ConfigError: there is no such file, folder or function, or it holds no labelled samples.
    """
    kind, _, rest = text.partition(":")
    if not Path(text).exists() and user_code.is_named(text):
        digest = user_code.digest(KEY, text)
        return LabelledData(kind="function", name=text, digest=digest, output=output, classes=classes)
    path = Path(rest if kind == "images" and rest else text).expanduser().resolve()
    known = LabelledData(
        kind="images" if path.is_dir() or kind == "images" else "npz", path=str(path), output=output, classes=classes
    )
    try:
        return dataclasses.replace(known, digest=content(known))
    except OSError as error:
        raise ConfigError(f"{KEY}={text}: {error.strerror}: give {_KINDS}") from error
    except LabelError as error:
        raise ConfigError(str(error)) from error


def content(data: LabelledData) -> str:
    """Compute the SHA-256 of a file, or of every picture with the folder and name that it goes by."""
    root = Path(data.source)
    files = [root] if data.kind == "npz" else [file for file, _ in pictures(data)]
    lines = []
    for file in files:
        if not stat.S_ISREG(file.stat().st_mode):
            raise LabelError(f"{KEY}={file}: is neither a file nor a folder: give {_KINDS}")
        with regular_files.open_input(file, follow=True) as opened:
            name = "" if data.kind == "npz" else file.relative_to(root).as_posix()
            lines.append(f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {name}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _classes_fault(names: list[str], classes: int | None, *, numbered: bool) -> str | None:
    """Return why folders of these names are not that many classes; None if they are, or the number is not known."""
    if classes is None:
        return None
    if numbered:
        largest = max(map(int, names))
        return f"holds a folder {largest}" if largest >= classes else None
    return f"holds {len(names)} folders" if len(names) != classes else None


def pictures(data: LabelledData) -> list[tuple[Path, int]]:
    """List every picture with its class, in the order of the classes' folders."""
    root = Path(data.source)
    folders = sorted(item for item in root.iterdir() if item.is_dir() and not item.name.startswith("."))
    if not folders:
        raise LabelError(f"{KEY}={root}: no folders in it; give a folder of pictures for each class")
    numbered = all(folder.name.isascii() and folder.name.isdigit() for folder in folders)
    fault = _classes_fault([folder.name for folder in folders], data.classes, numbered=numbered)
    if fault:
        raise LabelError(f"{KEY}={root}: {fault}, but output {data.output} has {data.classes} classes{_NUMBERS}")
    labelled = [
        (file, int(folder.name) if numbered else number)
        for number, folder in enumerate(folders)
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in images.PICTURES and not file.name.startswith(".")
    ]
    if not labelled:
        raise LabelError(f"{KEY}={root}: no {', '.join(images.PICTURES)} in its {len(folders)} folders")
    return labelled
