"""Feed broken and hostile content to every door through which a file from elsewhere is read.

A door takes a path, reads what stands there as a command would, and uses what it has read. A case is sound content with
a few faults in it: bytes that are flipped, cut or put in, values that no version wrote, members of an archive or fields
of a message that contradict each other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import os
import re
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from record_readers import use_record

from sweep import models
from sweep.backends.simulated import _slowness
from sweep.backends.tensorrt import plan_file
from sweep.config import compose, variants
from sweep.errors import SweepError, error_line
from sweep.loadgen import arrival_trace
from sweep.models import Signature, TensorSpec
from sweep.models.datasets import calibration, input_samples, labelled_files, labelled_reader, sample_files
from sweep.runner import messages
from sweep.spec import ModelRef
from sweep.storage import record_file, samples_file
from sweep.storage.cache import inventory
from sweep.storage.cache import store as cache_store
from sweep.storage.record_index import Index
from sweep.storage.samples import ARRAYS, PointSamples
from sweep.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
MOST_CPU_S = 5.0
"""Most CPU time of one case: no content of a few kilobytes may take more."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
_ACTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pickle.find_class")


_ACTIVE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # what a terminal acts on


class Witness:
    """Record what the process does to other files, and each program, connection or pickle, while a case runs.

    It is Python's own audit hook, so that what a library does through Python is seen too.
    """

    def __init__(self) -> None:
        self._inside: str | None = None
        self.seen: list[str] = []
        self._bytecode = sys.pycache_prefix or "/dev/null"  # a library that is imported in a case may be compiled
        sys.addaudithook(self._hear)

    @contextlib.contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Watch what happens outside of `folder`."""
        self.seen, self._inside = [], str(folder)
        try:
            yield
        finally:
            self._inside = None

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self._inside is None:
            return
        if event == "open":
            paths = args[:1] if isinstance(args[2], int) and args[2] & _WRITES else ()
        elif event in _CHANGES:
            paths = tuple(value for value in args[:2] if isinstance(value, str | bytes | os.PathLike))
        elif event in _ACTS:
            self.seen.append(f"{event} {str(args)[:100]}")
            return
        else:
            return
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                text = os.fsdecode(path)
                if not text.startswith((self._inside, self._bytecode, "/dev/null")) and os.path.isabs(text):  # noqa: PTH117 - text
                    self.seen.append(f"{event} {text}")


@functools.cache
def witness() -> Witness:
    """Return the one witness of this process: a hook cannot be taken off again."""
    return Witness()


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Describe one door.

    Attributes:
        name: in tables.
        file: path of the file below the folder of a case.
        seeds: returns sound contents.
        tokens: byte strings that faults put in.
        use: reads the file and uses what it has read, as a command would.
        share: part of all cases, in thousandths.
        rebuild: strategy of contents that are damaged inside and sound outside; None for none.
    """

    name: str
    file: str
    seeds: Callable[[], list[bytes]]
    use: Callable[[Path], object]
    share: int
    tokens: tuple[bytes, ...] = ()
    rebuild: Callable[[], st.SearchStrategy[bytes]] | None = None


class FaultError(AssertionError):
    """Report a case that broke a promise: another error than one line, a write outside, or too much time."""


def outcome(door: Door, content: bytes, folder: Path) -> str:
    """Run one case.

    Returns:
        ``read``, or the name of the class of the one-line error.

    Raises:
        FaultError: the case ended in any other way.
    """
    path = folder / door.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    began = time.process_time()
    with witness().watching(folder):
        try:
            door.use(path)
            result = "read"
        except SweepError as error:
            line = error_line(error)
            if not line.strip() or _ACTIVE.search(line):
                raise FaultError(f"not one line of text: {line!r:.200}") from error
            result = type(error).__name__
        except Exception as error:
            place = _place(error)
            raise FaultError(f"{type(error).__name__} at {place}: {str(error)!r:.120}") from error
    if witness().seen:
        raise FaultError(f"outside of its folder: {witness().seen[0]}")
    seconds = time.process_time() - began
    if seconds > MOST_CPU_S:
        raise FaultError(f"took more than {MOST_CPU_S:g} s of CPU time")
    return result


def _place(error: BaseException) -> str:
    """Return the innermost line of sweep's own code that an error passed."""
    trace, place = error.__traceback__, "?"
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if f"{ROOT}/sweep/" in name:
            place = f"{name.removeprefix(f'{ROOT}/')}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def contents(door: Door) -> st.SearchStrategy[bytes]:
    """Return the strategy of a door's cases: sound contents with one to five faults."""
    seeds = st.sampled_from(door.seeds())
    edited = st.builds(_edited, seeds, st.lists(_edits(door.tokens), min_size=1, max_size=5))
    return (
        edited
        if door.rebuild is None
        else st.one_of(
            edited, door.rebuild(), st.builds(_edited, door.rebuild(), st.lists(_edits(door.tokens), max_size=2))
        )
    )


_PLACE = st.integers(0, (1 << 16) - 1)


def _edits(tokens: tuple[bytes, ...]) -> st.SearchStrategy[tuple[str, int, Any]]:
    kinds = [
        st.tuples(st.just("flip"), _PLACE, st.integers(0, 7)),
        st.tuples(st.just("byte"), _PLACE, st.integers(0, 255)),
        st.tuples(st.just("drop"), _PLACE, st.integers(1, 64)),
        st.tuples(st.just("again"), _PLACE, st.integers(1, 64)),
        st.tuples(st.just("cut"), _PLACE, st.none()),
    ]
    if tokens:
        kinds += [
            st.tuples(st.just("put"), _PLACE, st.sampled_from(tokens)),
            st.tuples(st.just("value"), _PLACE, st.sampled_from(tokens)),
            st.tuples(st.just("value"), _PLACE, st.sampled_from(tokens)),
        ]
    return st.one_of(kinds)


_VALUE = re.compile(rb'(?<=: )(?:"[^"\n]*"|[^,\n\[\]{}]+)|(?<=\n)[^,\n:]+(?=[,\n])')


def _edited(content: bytes, edits: list[tuple[str, int, Any]]) -> bytes:
    data = bytearray(content)
    for kind, place, what in edits:
        at = place * len(data) >> 16
        if kind == "put":
            data[at:at] = what
        elif kind == "value":
            values = list(_VALUE.finditer(data))
            if values:
                match = values[place * len(values) >> 16]
                data[match.start() : match.end()] = what
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + what]
        elif kind == "again":
            data[at:at] = data[at : at + what]
        elif data:
            data[at] = data[at] ^ (1 << what) if kind == "flip" else what
    return bytes(data)


# Text

_JSON = tuple(
    text.encode("utf-8", "surrogatepass")
    for text in (
        *("NaN", "Infinity", "-1e999", "1e308", "-1", "0", "true", "null", '""', "[]", "{}", "[[1]]", '{"a":{}}'),
        *(
            "9" * 400,
            "9" * 5000,
            "[" * 3000,
            '"\\ud800"',
            '"\\u0000"',
            '"\ud800"',
            '"\x1b[31m"',
            '"a\nb"',
            '"' + "x" * 5000 + '"',
        ),
        *(
            '"9999-99-99T00:00:00"',
            '"0001-01-01"',
            '"../../etc/passwd"',
            '"/dev/zero"',
            ', "schema": 1',
            ', "schema": 99',
        ),
        *('"ok"', '"drifted"', "1.5", "\ufeff", "\x00"),
    )
)
_TEXT = tuple(
    text.encode()
    for text in (
        "nan",
        "inf",
        "-1",
        "1e309",
        "1e-300",
        "0x10",
        "1_0",
        '"',
        "'",
        ",",
        ";",
        "\r",
        "\n",
        "\x00",
        "\x1b[31m",
        "9" * 5000,
        "\ufeff",
        "٣",
        "=cmd|'/C calc'!A0",
        "arrival_s",
    )
)
_YAML = tuple(
    text.encode()
    for text in (
        *(
            "&a [*a]",
            "*a",
            "!!python/object/apply:os.system [id]",
            "!!binary aGVsbG8=",
            "!evil x",
            "${oc.env:HOME}",
            "${batch}",
            "${",
        ),
        *(
            "\n---\n",
            "\t",
            "? [a]\n: 3\n",
            "null: 3\n",
            "hydra:\n  run: {dir: /tmp/x}\n",
            "_target_: os.system\n",
            "defaults:\n  - x\n",
        ),
        *(
            "[" * 3000,
            "{a: " * 500,
            ".nan",
            ".inf",
            "1e300",
            "-1",
            "010",
            "1:30",
            "2020-01-01",
            "yes",
            "~",
            "9" * 5000,
            '"\\e[31m"',
            "\x00",
        ),
        *(
            "graph: os.path:join\n",
            "model: {path: /dev/zero}\n",
            "batch: 1,2\n",
            "name: ../x\n",
            "# @package hydra\n",
            "range(1,100000000)",
        ),
    )
)


@functools.cache
def _records() -> list[bytes]:
    paths = sorted(ROOT.glob("results/reference/**/records/*.json")) + sorted(ROOT.glob("tests/data/records/*.json"))
    by_size = sorted(paths, key=lambda path: path.stat().st_size)
    chosen = by_size[:: max(len(by_size) // 6, 1)]
    return [re.sub(rb'"key": "[^"]*"', b'"key": "k"', path.read_bytes(), count=1) for path in chosen]


_SOUND = "0" * 16


def _use_record(path: Path) -> None:
    use_record(record_file.read(path))


def _use_index(path: Path) -> None:
    """An index is never refused: what is odd is read from the records again."""
    store = Store(path.parent)
    if not store.record_path(_SOUND).exists():
        record = record_file.read(next(iter(sorted(ROOT.glob("tests/data/records/*.json")))))
        store.write(dataclasses.replace(record, key=_SOUND))
    index = Index(store)
    entry = index.entry(_SOUND)
    str(index.facts[entry.facts].get("gpu"))
    index.save([_SOUND])


def _index_seeds() -> list[bytes]:
    row = [1, 2, 3, 4, 5, 6, "ok", None, 0, True]
    facts = [{"gpu": "g", "cpu": "c"}]
    return [json.dumps({"version": 1, "facts": facts, "rows": {_SOUND: row, "b": row}}, indent=1).encode()]


def _use_yaml(path: Path) -> None:
    words = [f"--config-dir={path.parent.parent}", "+experiment=x", "backend=simulated", f"results={path.parent}"]
    request = compose.read(words)
    if request is not None:
        for config in itertools.islice(request.configs, 2):
            variants.from_config(config)
        variants.settings(request.configs[0], request.overrides)


def _yaml_seeds() -> list[bytes]:
    head = "# @package _global_\n"
    return [
        f"{head}hydra:\n  sweeper:\n    params:\n      batch: 1,2\n      precision: fp16,int8\n".encode(),
        f"{head}batch: 2\nstreams: 3\nload:\n  kind: closed\n  min_s: 0.5\ntimeout_s: 20\nname: x\n".encode(),
        f"{head}model:\n  name: digits\ngpus: [0]\nslo:\n  p99_ms: 5\n".encode(),
        f"{head}backend:\n  script:\n    service_us: 5\nbatching:\n  max_wait_ms: 2\n".encode(),
    ]


def _use_trace(path: Path) -> None:
    arrival_trace._read.cache_clear()
    arrival_trace.axes(str(path), 1.0, 1e9)


def _use_tokens(path: Path) -> None:
    ids = TensorSpec(name="ids", dtype="int64", shape=("batch", 4))
    calibration.check(calibration.parse(f"tokens:{path}"), Signature(inputs=(ids,), outputs=()), 1)


def _use_manifest(path: Path) -> None:
    entry, note = cache_store._verify(path.parent)
    assert (entry is None) == (note is not None)
    for item in inventory.items(path.parents[2]):
        str(item.description)


def _manifest_seeds() -> list[bytes]:
    about = {"model": "m", "precision": "fp16", "batch": 1, "knobs": {"a": 1}, "library": "l"}
    return [
        json.dumps(
            {"key": "k", "seconds": 1.5, "bytes": 3, "info": {"a": 1}, "about": about, "files": {}}, indent=1
        ).encode()
    ]


def _use_message(path: Path) -> None:
    for line in path.read_bytes().splitlines():
        messages.decode_event(line)
        messages.decode(line, messages.Failure)


# Archives


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _zip(members: dict[str, bytes], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return buffer.getvalue()


_HEADERS = tuple(
    text.encode()
    for text in (
        *(
            "(1099511627776, 4)",
            "(4611686018427387904, 4611686018427387904)",
            "(-5, 4)",
            "(1.5, 4)",
            "()",
            "(0,)",
            "(True,)",
        ),
        *(
            "'|O'",
            "'|V0'",
            "'<U0'",
            "'<f8'",
            "'>f4'",
            "'M8[s]'",
            "'|S9999'",
            "[('a','<f4')]",
            "True",
            "print(1)",
            "(" * 300,
        ),
        *(
            "'shape': (16, 4)",
            "'descr': '<f4'",
            "{",
            "}",
            "\n",
            "\x93NUMPY\x02\x00",
            "\x93NUMPY\x03\x00",
            "\x93NUMPY\xff\xff",
        ),
    )
)
_INPUT = TensorSpec(name="x", dtype="float32", shape=("batch", 4))
_NETWORK = Signature(inputs=(_INPUT,), outputs=("y",))
_ARRAYS = {"x.npy": _npy(np.ones((16, 4), np.float32)), "labels.npy": _npy(np.zeros(16, np.int64))}


def _npz_seeds() -> list[bytes]:
    return [
        _zip(_ARRAYS, zipfile.ZIP_STORED),
        _zip({"x.npy": _ARRAYS["x.npy"]}, zipfile.ZIP_DEFLATED),
        _ARRAYS["x.npy"],
    ]


def _members(arrays: dict[str, bytes]) -> st.SearchStrategy[bytes]:
    """Archives that are sound, around arrays that are not: header, name, number of members, way to pack."""
    edits = st.lists(_edits(_HEADERS), max_size=3)
    names = st.sampled_from([*arrays] * 4 + [" ", ".npy", "../x.npy", "a\x1b.npy"])
    methods = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    contents_of = st.builds(_edited, st.sampled_from([*arrays.values()]), edits)
    wanted = st.fixed_dictionaries(
        {name: st.builds(_edited, st.just(content), edits) for name, content in arrays.items()}
    )
    return st.builds(_zip, st.one_of(wanted, st.dictionaries(names, contents_of, max_size=3)), methods)


def _use_calibration(path: Path) -> None:
    calibration.check(calibration.parse(str(path)), _NETWORK, 1)


def _use_labels(path: Path) -> None:
    labelled_reader.check(labelled_files.parse_labels(str(path), "y", 10), _NETWORK)


def _use_user_samples(path: Path) -> None:
    data = sample_files.parse_samples(str(path))
    sample_files.headers(data)
    input_samples.load(data, _NETWORK)


def _samples_content() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s.npz")
        samples_file.save(path, [_point(0), _point(1)], durable=False)
        return path.read_bytes()


def _point(index: int) -> PointSamples:
    arrays = {name: np.arange(20, dtype=np.int64) for name in ARRAYS}
    return PointSamples(
        kind="closed", index=index, repeat=0, batch=1, offered_rps=None, overloaded=False, complete=True, **arrays
    )


@functools.cache
def _samples_members() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(_samples_content())) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def _use_samples(path: Path) -> None:
    for point in samples_file.load(path):
        repr(point)
    samples_file.was_measured_for(path, "p99<=10")


def _picture_seeds() -> list[bytes]:
    seeds = []
    for kind in ("png", "jpeg", "bmp", "webp"):
        buffer = io.BytesIO()
        Image.effect_noise((12, 12), 50).save(buffer, kind)
        seeds.append(buffer.getvalue())
    return seeds


def _use_picture(path: Path) -> None:
    network = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 3, 8, 8)),), outputs=())
    calibration.check(calibration.parse(f"images:{path.parent}"), network, 1)


# Models


def _model() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    branch = helper.make_graph(
        [helper.make_node("Identity", ["h"], ["o"])],
        "b",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="n"),
        helper.make_node("If", ["c"], ["i"], then_branch=branch, else_branch=branch),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "g", *ends, [weight, numpy_helper.from_array(np.ones((), bool), "c")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@functools.cache
def _model_seeds() -> list[bytes]:
    external = _model()
    tensor = external.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "48")):
        tensor.external_data.add(key=key, value=value)
    return [_model().SerializeToString(), external.SerializeToString()]


_ODD_NUMBERS = (0, 1, -1, 99, 2**31 - 1, -(2**31), 2**40, 2**62, 2**63 - 1)
_ODD_NAMES = (
    "",
    "x",
    "y",
    "w",
    "h",
    "../w.bin",
    "/dev/zero",
    "a\x1b[31m",
    "a\nb",
    "n" * 5000,
    "If",
    "Loop",
    "9" * 30,
    "-5",
)


def _fields(message: Any, depth: int = 0) -> list[tuple[Any, Any, int | None]]:
    """List every scalar of a message and of those inside: the message, the field, and the number in a repeated one."""
    places: list[tuple[Any, Any, int | None]] = []
    for field, value in message.ListFields():
        repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
        if field.message_type is not None:
            for inner in value if repeated else [value]:
                places += _fields(inner, depth + 1)
        else:
            places += (
                [(message, field, number) for number in range(len(value))] if repeated else [(message, field, None)]
            )
    return places


def _with_odd_fields(choices: list[tuple[int, int]]) -> bytes:
    model = _model()
    if choices[0][1] % 2:
        model = onnx.load_from_string(_model_seeds()[1])
    for place, odd in choices:
        places = _fields(model)
        message, field, number = places[place % len(places)]
        old = getattr(message, field.name) if number is None else getattr(message, field.name)[number]
        new: Any = _ODD_NAMES[odd % len(_ODD_NAMES)] if isinstance(old, str) else _ODD_NUMBERS[odd % len(_ODD_NUMBERS)]
        if isinstance(old, bytes):
            new = old[: odd % 9]
        with contextlib.suppress(ValueError, TypeError):  # a number that the field cannot hold
            if number is None:
                setattr(message, field.name, new)
            else:
                getattr(message, field.name)[number] = new
    return model.SerializeToString()


def _odd_models() -> st.SearchStrategy[bytes]:
    return st.builds(
        _with_odd_fields, st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1, max_size=3)
    )


def _use_model(path: Path) -> None:
    """As a plan does, and as a worker does before anything is converted."""
    (path.parent / "w.bin").write_bytes(bytes(48))
    reference = ModelRef(name="m", path=str(path))
    models.file_digest(path)
    signature = models.inspect(path, reference)
    for read in (models.outputs, models.parameters, models.opset, models.dynamic_inputs, models.is_too_new):
        read(path)
    if models.needs_normal_form(path, reference):
        target = path.parent / "normal" / "m.onnx"
        target.parent.mkdir(exist_ok=True)
        models.write_normal_form(path, signature.inputs, target)
    models.cost(path, {spec.name: spec.concrete(1) for spec in signature.inputs})


def _plan_seeds() -> list[bytes]:
    def plan(tag: bytes) -> bytes:
        return tag + bytes(12) + (64).to_bytes(8, "little") + bytes([10, 3, 0, 26]) + bytes(36)

    return [plan(b"vtrt"), plan(b"ftrt"), (2).to_bytes(4, "little") + b"{}" + plan(b"ftrt")]


DOORS = (
    Door(name="record", file="k.json", seeds=_records, use=_use_record, share=150, tokens=_JSON),
    Door(name="index", file="index.json", seeds=_index_seeds, use=_use_index, share=150, tokens=_JSON),
    Door(name="yaml", file="experiment/x.yaml", seeds=_yaml_seeds, use=_use_yaml, share=5, tokens=_YAML),
    Door(
        name="calibration.npz",
        file="a.npz",
        seeds=_npz_seeds,
        use=_use_calibration,
        share=80,
        tokens=_HEADERS,
        rebuild=lambda: _members({"x.npy": _ARRAYS["x.npy"]}),
    ),
    Door(
        name="labels.npz",
        file="a.npz",
        seeds=_npz_seeds,
        use=_use_labels,
        share=70,
        tokens=_HEADERS,
        rebuild=lambda: _members(_ARRAYS),
    ),
    Door(
        name="inputs.npz",
        file="a.npz",
        seeds=_npz_seeds,
        use=_use_user_samples,
        share=80,
        tokens=_HEADERS,
        rebuild=lambda: _members({"x.npy": _ARRAYS["x.npy"]}),
    ),
    Door(
        name="samples.npz",
        file="s.npz",
        seeds=lambda: [_samples_content()],
        use=_use_samples,
        share=70,
        tokens=_HEADERS,
        rebuild=lambda: _members(_samples_members()),
    ),
    Door(name="onnx", file="m.onnx", seeds=_model_seeds, use=_use_model, share=120, rebuild=_odd_models),
    Door(
        name="trace",
        file="t.csv",
        seeds=lambda: [b"0\n0.1\n0.2\n", b"id,arrival_s\n1,0.5\n2,0.75\n"],
        use=_use_trace,
        share=110,
        tokens=_TEXT,
    ),
    Door(name="tokens", file="t.txt", seeds=lambda: [b"1 2 3 4\n5 6 7\n"], use=_use_tokens, share=55, tokens=_TEXT),
    Door(name="picture", file="p/0.png", seeds=_picture_seeds, use=_use_picture, share=40),
    Door(
        name="cache manifest",
        file="engines/k/entry.json",
        seeds=_manifest_seeds,
        use=_use_manifest,
        share=30,
        tokens=_JSON,
    ),
    Door(
        name="simulated machine",
        file="machine",
        seeds=lambda: [b"1.5\n"],
        use=lambda path: _slowness(str(path)),
        share=10,
        tokens=_TEXT,
    ),
    Door(name="plan", file="e.plan", seeds=_plan_seeds, use=plan_file.read, share=15),
    Door(
        name="worker message",
        file="lines",
        seeds=lambda: [messages.encode(messages.Failure(stage="load", kind="K", message="m"))],
        use=_use_message,
        share=15,
        tokens=_JSON,
    ),
)
