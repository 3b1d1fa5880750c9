"""The parser against what the binaries really printed (tests/data/README.md says where it was published)."""

from pathlib import Path

import pytest

from sweep.cli.trtexec import output_parser
from sweep.errors import ParityError

DATA = Path(__file__).parents[3] / "data"


def said(name):
    return (DATA / name).read_text()


def test_a_whole_summary_of_10_13() -> None:
    found = output_parser.parse(said("trtexec-10.13.txt"))
    assert found.version == "10.13.0"
    assert found.throughput_qps == 0.562059
    assert found.latency_ms == {
        "min": 1656.22, "max": 1674.64, "mean": 1666.9, "median": 1667.89,
        "p90": 1673.26, "p95": 1674.64, "p99": 1674.64,
    }  # fmt: skip
    assert found.gpu_compute_ms["mean"] == 1666.2
    assert found.gpu_compute_ms["median"] == 1667.19
    assert found.enqueue_ms is not None
    assert found.enqueue_ms["mean"] == 1663.95
    assert [line[:33] for line in found.warnings] == [
        "* Throughput may be bound by Enqu",
        "If not already in use, --useCudaG",
    ]
    assert not found.ungraphed


def test_latency_is_the_sum_of_its_parts_not_one_of_them() -> None:
    found = output_parser.parse(said("trtexec-issue-4177.txt"))
    assert (found.throughput_qps, found.version) == (130.298, None)
    assert found.latency_ms["mean"] == 7.60628
    assert found.latency_ms["mean"] == pytest.approx(0.0122212 + found.gpu_compute_ms["mean"] + 0.0100141, abs=1e-4)


def test_the_listing_of_tensorrt_rtx_with_its_wrapped_lines() -> None:
    found = output_parser.parse(said("tensorrt_rtx-docs.txt"))
    assert found.throughput_qps == 1133.1
    assert found.latency_ms == found.gpu_compute_ms
    assert found.gpu_compute_ms["p99"] == 0.88501
    assert found.enqueue_ms is not None
    assert found.enqueue_ms["median"] == 0.005249


def test_the_last_of_two_summaries_counts() -> None:
    both = said("trtexec-10.13.txt") + said("trtexec-issue-4177.txt")
    assert output_parser.parse(both).throughput_qps == 130.298


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("trtexec-10.0-failed.txt", "Inference set up failed"),
        ("trtexec-10.3-unknown-option.txt", "Unknown option: --workspace 2048"),
    ],
)
def test_a_failure_is_told_in_its_own_words(name, word) -> None:
    with pytest.raises(ParityError, match="no performance summary") as caught:
        output_parser.parse(said(name))
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    failed = output_parser.failure_reason(said(name))
    assert failed is not None
    assert word in failed
    assert output_parser.failure_reason(said("trtexec-10.13.txt")) is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("Throughput: 0.562059 qps", "Throughput: fast"), "has no Throughput"),
        (("Throughput: 0.562059 qps", "Throughput: nan qps"), "Throughput is nan"),
        (("GPU Compute Time: min = 1655.52 ms", "GPU Compute Time: min = 1.2.3 ms"), "GPU Compute Time is 1.2.3"),
        (("GPU Compute Time: min", "GPU Time: min"), "has no GPU Compute Time"),
    ],
)
def test_a_broken_summary_gives_no_figures(change, word) -> None:
    text = said("trtexec-10.13.txt")
    assert change[0] in text
    with pytest.raises(ParityError, match=word):
        output_parser.parse(text.replace(*change))


@pytest.mark.parametrize("text", ["", "Segmentation fault\n", "\x00\xff garbage", "=== Performance summary ===\n"])
def test_garbage_is_one_line(text) -> None:
    with pytest.raises(ParityError) as caught:
        output_parser.parse(text)
    assert "\n" not in str(caught.value)


def test_what_it_says_of_its_own_run() -> None:
    """The lines of sampleOptions.cpp's ``InferenceOptions`` and of sampleInference.cpp's refused capture, v11.1."""
    options = (
        "[06/30/2026-10:00:00] [I] Data transfers: Enabled\n[06/30/2026-10:00:00] [I] Spin-wait: Enabled\n"
        "[06/30/2026-10:00:00] [I] CUDA Graph: Disabled\n[06/30/2026-10:00:00] [I] TensorRT version: 11.1.0\n"
        "[06/30/2026-10:00:00] [W] CUDA graph capture failed. The inference will be launched\n"
    )
    found = output_parser.parse(options + said("trtexec-10.13.txt"))
    assert found.echo == {"Data transfers": True, "Spin-wait": True, "CUDA Graph": False}
    assert found.version == "11.1.0"
    assert found.ungraphed
