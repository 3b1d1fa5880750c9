"""Messages of libraries are shortened, and what names the cause stays, wherever they are shown."""

import time

import pytest

from sweep.backends.tensorrt import library
from sweep.cli.trtexec import output_parser
from sweep.errors import shorten
from sweep.models.importers import saved_model
from sweep.report.mlflow import client
from sweep.system import one_line

ONNXRUNTIME = (  # of onnxruntime 1.31: the cause comes last
    "[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/sweep-ranges-1y_zi9_j/measured.onnx failed:"
    "/onnxruntime_src/onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, const "
    "onnxruntime::PathString&, const onnxruntime::IOnnxRuntimeOpSchemaRegistryList*, const "
    "onnxruntime::logging::Logger&, const onnxruntime::ModelOptions&) Unsupported model IR version: 99, max supported "
    "IR version: 13"
)
SIGNATURE = "onnxruntime::common::Status onnxruntime::Conv<float>::Compute(onnxruntime::OpKernelContext*) const"
CAUSE = "max supported IR version: 13"
MIDDLE = "\n".join([*["loading a part"] * 40, "ValueError: the 7th dim is odd", *["while closing a part"] * 40])


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (ONNXRUNTIME, f"{ONNXRUNTIME.partition('/onnxruntime_src')[0]}Unsupported model IR version: 99, {CAUSE}"),
        (
            f"Status Message: /onnxruntime_src/core/nn/conv.cc:123 {SIGNATURE} X num_dims does not match",
            "Status Message: X num_dims does not match",
        ),
        (
            "(types Float and BFloat16. In validateTypes at /_src/nodes/elementWiseNode.cpp:40)",
            "(types Float and BFloat16.)",
        ),
        ("ModelImporter.cpp:151: ERROR: ModelImporter.cpp:489 In function parseNode: [6] no", "ERROR: [6] no"),
        ("Myelin ([type.cpp:186: infer_type] Could not infer", "Myelin (Could not infer"),
        ("[checkMacros.cpp::catchCudaError::250] Error Code 1", "Error Code 1"),
        ("'a.h5:12' and net.cpp have no Name::of(x)", "'a.h5:12' and net.cpp have no Name::of(x)"),
    ],
)
def test_places_in_a_librarys_source_are_left_out(message: str, cause: str) -> None:
    assert shorten(message) == cause


def test_what_every_build_without_a_gpu_says_is_no_cause() -> None:
    noise = "[macros.cpp::check::250] Error Code 1: Cuda Runtime (In check at /_src/macros.cpp:250 (cudaError 35: old))"
    assert library.explain(f"the type is not known; {noise}; the type is not known") == "the type is not known"
    assert "cudaError 35" in library.explain(noise)


@pytest.mark.parametrize("part", ["y", "a/b.", "a.cc:", " ", " \n", "x::", "In x at ", "y "])
def test_the_time_of_a_message_grows_with_its_length_alone(part: str) -> None:
    """A word of 120,000 letters took minutes: an expression was tried anew at each letter of it."""
    began = time.process_time()
    assert len(shorten(part * (100_000 // len(part)) + "x", 60)) <= 60
    assert time.process_time() - began < 2


def test_a_short_message_stays_and_is_on_one_line() -> None:
    assert shorten("two\n  lines ") == "two lines"
    assert shorten("") == ""
    assert shorten("x" * 400) == "x" * 400


def test_the_head_and_the_end_stay() -> None:
    line = shorten(ONNXRUNTIME, 300)
    assert len(line) <= 300
    assert line.startswith("[ONNXRuntimeError] : 1 : FAIL : Load model from")
    assert line.endswith(f"Unsupported model IR version: 99, {CAUSE}")


@pytest.mark.parametrize("limit", [60, 120, 300, 400])
def test_a_cause_in_the_middle_stays(limit: int) -> None:
    line = shorten(MIDDLE, limit)
    assert len(line) <= limit
    assert "ValueError" in line
    assert line.startswith("loading")
    assert line.endswith("part")
    assert "\n" not in line
    assert ("ValueError: the 7th dim is odd" in line) == (limit > 100)


def test_a_message_without_a_cause_keeps_both_ends() -> None:
    line = shorten("a" * 500 + "b" * 500, 100)
    assert line == f"{'a' * 47} ... {'b' * 47}"


def test_every_message_of_a_library_keeps_its_cause() -> None:
    log = library.Log()
    log.add("ERROR", "the first says why: no kernel for Foo")
    for number in range(40):
        log.add("ERROR", f"consequence {number} " + "x" * 90)
    log.add("ERROR", "the last")
    assert "no kernel for Foo" in log.tail()
    assert log.tail().endswith("the last")
    assert len(log.tail()) <= 1000
    told = "".join(f"[E] consequence {number} {'x' * 90}\n" for number in range(40))
    reason = output_parser.failure_reason(
        f"[E] no kernel for Foo\n{told}[E] the last\n&&&& FAILED TensorRT.trtexec [TensorRT v101300]"
    )
    assert reason is not None
    assert reason.startswith("no kernel for Foo")
    assert reason.endswith("the last")
    assert CAUSE in str(client.failure("http://store", ONNXRUNTIME))
    assert one_line(RuntimeError(ONNXRUNTIME)).endswith(CAUSE)
    assert "ValueError: the 7th dim is odd" in one_line(RuntimeError(MIDDLE))


def test_the_exception_at_the_end_of_a_traceback_is_whole() -> None:
    lines = [
        "I am a warning",
        "Traceback (most recent call last):",
        "KeyError: 'a'",
        "x.py",
        "a.b.OpError: no Foo",
        "hint",
    ]
    assert saved_model._exception(lines) == "a.b.OpError: no Foo\nhint"
    assert saved_model._exception(["Killed"]) == "Killed"
