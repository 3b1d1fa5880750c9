"""Operations, bytes, roofline and totals of layers against figures that were worked out by hand."""

from __future__ import annotations

import pytest
from layer_profiles import SIDE, ProfileAuthor, listed

from sweep.analysis.layers import GPUS, LayerRow, Peaks, analyse, full_from_batch, measured_peaks, peaks_of

CUBE = 2.0 * SIDE**3
SQUARE = SIDE * SIDE


def row(g: ProfileAuthor, place: int = -1, **more: object) -> LayerRow:
    return analyse(g.profile(**more)).rows[place]


def test_a_product_has_its_operations_bytes_rates_and_shares() -> None:
    g = ProfileAuthor()
    g.product("x", us=10.0)
    seen = row(g)
    assert (seen.category, seen.dtype, seen.op_kinds, seen.share) == ("gemm", "fp16", ("MatMul",), 1.0)
    assert (seen.flops, seen.bytes) == (CUBE, 3 * SQUARE * 2)
    assert seen.tflops == pytest.approx(CUBE / 10e-6 / 1e12)
    assert seen.gb_per_s == pytest.approx(3 * SQUARE * 2 / 10e-6 / 1e9)
    assert seen.share_of_compute_peak == pytest.approx((seen.tflops or 0) / 989.4)
    assert seen.share_of_bandwidth_peak == pytest.approx((seen.gb_per_s or 0) / 4800)
    assert (seen.time_us, seen.p10_us, seen.p90_us) == (10, 9, 11)


def test_the_librarys_own_tensors_go_before_those_of_the_graph() -> None:
    g = ProfileAuthor("fp32")
    y = g.op("MatMul", "x", g.const((SIDE, SIDE)))
    g.layer(y, us=10, inputs=[listed("x", (SIDE, SIDE), "int8")], constants=[listed("w", (SIDE, SIDE), "int8")],
            outputs=[listed("y", (SIDE, SIDE), "Half")])  # fmt: skip
    seen = row(g)
    assert (seen.dtype, seen.bytes) == ("int8", SQUARE * (1 + 1 + 2))
    g.layers[0]["constants"] = [listed("w", (SIDE, SIDE), "int4")]
    g.layers[0]["inputs"] = [listed("x", (SIDE, SIDE))]
    seen = row(g)
    assert (seen.dtype, seen.bytes) == ("fp16", SQUARE * 2 * 2 + SQUARE // 2)  # weights are widened
    g.layers[0]["outputs"][0]["shape"] = None
    assert row(g).bytes == 3 * SQUARE * 4  # by the graph
    g.tensors["x"]["shape"] = None
    assert (row(g).bytes, row(g).flops, row(g).bound) == (None, None, "unknown")


@pytest.mark.parametrize(
    ("op", "inputs", "output", "attributes", "flops", "category"),
    [
        ("Conv", [(8, 64, 14, 14), (32, 64, 3, 3)], (8, 32, 14, 14), {}, 2 * 8 * 32 * 196 * 64 * 9, "convolution"),
        ("com.microsoft.FusedConv", [(1, 4, 8, 8), (2, 4, 1, 1)], (1, 2, 8, 8), {}, 2 * 2 * 64 * 4, "convolution"),
        ("com.microsoft.FusedMatMul", [(6, 4), (6, 5)], (4, 5), {"transA": 1}, 2 * 4 * 5 * 6, "gemm"),
        ("Attention", [(2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 8)], (2, 3, 4, 8), {}, 2 * 24 * 6 * 16, "attention"),
        ("com.microsoft.Attention", [(2, 4, 8), (8, 24)], (2, 4, 8), {}, 2 * (64 * 24 + 2 * 32 * 8), "attention"),
        ("Softmax", [(4, 5)], (4, 5), {}, 5 * 20, "normalisation"),
        ("MaxPool", [(1, 2, 8, 8)], (1, 2, 4, 4), {"kernel_shape": [3, 3]}, 32 * 9, "reduction"),
        ("ReduceMean", [(4, 5)], (4, 1), {}, 20, "reduction"),
        ("Erf", [(4, 5)], (4, 5), {}, 20, "elementwise"),
        ("QuantizeLinear", [(4, 5), ()], (4, 5), {}, 20, "quantisation"),
        ("Transpose", [(4, 5)], (5, 4), {"perm": [1, 0]}, 0, "data movement"),
        ("NonZero", [(4, 5)], (2, 3), {}, 0, "other"),
    ],
)  # fmt: skip
def test_operators_are_counted_and_named(
    op: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], attributes: dict, flops: float, category: str
) -> None:
    g = ProfileAuthor()
    tensors = [g.tensor(f"in{place}", shape) for place, shape in enumerate(inputs)]
    g.op(op, *tensors, shape=output, **attributes)
    g.each(us=1)
    seen = row(g)
    assert (seen.flops, seen.category) == (flops, category)


def test_a_lookup_reads_no_more_of_its_table_than_it_writes() -> None:
    g = ProfileAuthor()
    table, at = g.const((30000, 64)), g.tensor("at", (8, 16), "int64")
    y = g.op("Gather", table, at, shape=(8, 16, 64))
    g.layer(y, us=1)
    rows = 8 * 16
    assert row(g).bytes == rows * 64 * 2 * 2 + rows * 8
    g.layers[0].update(inputs=[listed("at", (8, 16), "Int64")], constants=[listed("t", (30000, 64))],
                       outputs=[listed("y", (8, 16, 64))])  # fmt: skip
    assert row(g).bytes == rows * 64 * 2 * 2 + rows * 8


def test_a_view_moves_nothing_on_onnxruntime() -> None:
    g = ProfileAuthor()
    g.op("Reshape", "x", g.const((2,), "int64"), shape=(SQUARE,))
    g.each(us=1)
    assert row(g, source="onnxruntime").bytes == 0
    assert row(g).bytes == 2 * SQUARE * 2 + 2 * 8


def test_a_node_of_several_layers_counts_where_it_is_multiplied() -> None:
    g = ProfileAuthor()
    image = g.tensor("image", (8, 3, 224, 224))
    y = g.op("Conv", image, g.const((64, 3, 7, 7)), shape=(8, 64, 112, 112))
    g.layer(y, us=5, name="__myl_CastConc_myl0_0")
    g.layer(y, us=20, name="stem_U0_myl0_1", kind="correlation")
    pad, conv = analyse(g.profile()).rows
    assert (pad.flops, pad.category) == (0, "data movement")
    assert (conv.flops, conv.category) == (2.0 * 8 * 64 * 112 * 112 * 3 * 49, "convolution")
    g.layers[0].update(kind="correlation", name="stem_split")
    assert [r.flops for r in analyse(g.profile()).rows] == [conv.flops / 2] * 2


@pytest.mark.parametrize(
    ("name", "kind", "added", "category"),
    [
        ("layer0.attention.key.matmul", "gemm", None, "gemm"),
        ("Reformatting CopyNode", "Reformat", None, "data movement"),
        ("__myl_Tran_myl0_55", "kgen", None, "data movement"),
        ("anything", "kgen", "reformat", "data movement"),
        ("anything", "Shuffle", None, "data movement"),
        ("anything", "kgen", None, "other"),
    ],
)
def test_a_layer_without_nodes_is_named_by_what_the_library_says(
    name: str, kind: str, added: str | None, category: str
) -> None:
    g = ProfileAuthor()
    g.layer(us=1, name=name, kind=kind, added=added)
    assert row(g).category == category


def test_layers_are_bound_by_the_nearer_roof_or_by_their_launch() -> None:
    g = ProfileAuthor()
    g.product("x", us=10)  # 215 TFLOP/s of 989, 629 GB/s of 4,800
    g.op("Erf", "x")
    g.each(us=6)  # 4 MB
    g.op("Erf", g.tensor("tiny", (8, 8)))
    g.each(us=3)
    assert [r.bound for r in analyse(g.profile()).rows] == ["compute", "memory", "launch"]
    assert [r.bound for r in analyse(g.profile(device="unheard of")).rows] == ["unknown", "unknown", "launch"]
    assert [r.bound for r in analyse(g.profile(source="onnxruntime", device="a CPU")).rows] == ["unknown"] * 3
    assert analyse(g.profile()).totals.bound == "compute"
    assert analyse(g.profile(timed_us=100.0)).totals.bound == "launch"  # 81 us lie between the layers


def test_totals_hold_the_layers_against_the_inference_and_name_the_rest() -> None:
    g = ProfileAuthor()
    g.products(count=3, us=10)
    g.op("Erf", "x")
    g.each(us=10)
    totals = analyse(g.profile(timed_us=50.0)).totals
    assert (totals.layers_us, totals.rest_us, totals.rest_share) == (40, 10, 0.2)
    assert totals.rest_name == "gaps between kernels, and their launches"
    assert (totals.gemm_share, totals.category_us) == (0.75, {"gemm": 30, "elementwise": 10})
    assert totals.flops == 3 * CUBE + SQUARE
    assert totals.tflops == pytest.approx(totals.flops / 50e-6 / 1e12)
    assert totals.dtype == "fp16"
    ideal_us = 3 * CUBE / 989.4e6 + SQUARE / 67e6
    assert totals.share_of_compute_peak == pytest.approx(ideal_us / 50)
    assert totals.share_of_bandwidth_peak == pytest.approx(totals.bytes / 50e-6 / 4.8e12)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"cuda_graph": True}, "gaps between the kernels of the graph"),
        ({"source": "onnxruntime"}, "onnxruntime's own work between nodes"),
        ({"timed_us": 5.0}, "what the profiler adds to the layers"),
    ],
)
def test_the_rest_is_named_by_how_it_was_timed(more: dict, name: str) -> None:
    g = ProfileAuthor()
    g.product("x", us=10)
    analysis = analyse(g.profile(**({"timed_us": 20.0} | more)))
    assert analysis.totals.rest_name == name
    assert name in analysis.notes[0]


def test_layers_of_several_streams_may_take_longer_than_the_inference() -> None:
    g = ProfileAuthor()
    g.product("x", us=10)
    g.product("x", us=10)
    g.layers[1]["stream"] = 1
    assert analyse(g.profile(timed_us=12.0)).totals.rest_name == "layers that ran at the same time"


def test_an_empty_profile_and_layers_without_a_time_are_analysed() -> None:
    g = ProfileAuthor()
    assert analyse(g.profile()).totals.gemm_share is None
    g.product("x")
    g.layers[0]["time"] = None
    seen = analyse(g.profile(timed_us=10.0))
    assert (seen.rows[0].time_us, seen.rows[0].tflops, seen.rows[0].bound) == (None, None, "unknown")
    assert (seen.rows[0].flops, seen.totals.layers_us, seen.findings) == (CUBE, 0, [])


def test_measured_peaks_replace_those_of_the_data_sheet() -> None:
    g = ProfileAuthor("fp32")
    g.product("x", us=1000)
    peaks = Peaks(name="a CPU", source="measured", gb_per_s=10.0, tflops={"fp32": 4.0}, measured=True)
    seen = analyse(g.profile(device="a CPU", source="onnxruntime"), peaks)
    assert seen.rows[0].share_of_compute_peak == pytest.approx(CUBE / 1e-3 / 4e12)
    assert (seen.rows[0].bound, seen.notes) == ("memory", [])
    without = analyse(g.profile(device="a CPU", source="onnxruntime"))
    assert without.peaks is None
    assert "peaks of a CPU are not known" in without.notes[0]
    assert without.rows[0].tflops == seen.rows[0].tflops


def test_peaks_are_measured_by_a_large_product_and_a_copy() -> None:
    """A layer that reached them is at 100% of each, and no other device's profile is mixed in."""
    product, copy, other = (ProfileAuthor("fp32") for _ in range(3))
    product.product("x", us=1000)
    copy.op("Erf", "x")
    copy.each(us=100)
    profiles = [author.profile(device="a CPU", source="onnxruntime") for author in (product, copy)]
    peaks = measured_peaks(profiles)
    assert peaks is not None
    assert (peaks.name, peaks.measured, peaks.gb_per_s) == ("a CPU", True, pytest.approx(2 * SQUARE * 4 / 100e-6 / 1e9))
    assert peaks.tflops == {"fp32": pytest.approx(CUBE / 1e-3 / 1e12)}
    rows = [analyse(profile, peaks).rows[0] for profile in profiles]
    assert (rows[0].share_of_compute_peak, rows[0].bound) == (1, "compute")
    assert (rows[1].share_of_bandwidth_peak, rows[1].bound) == (1, "memory")
    of_product_alone = measured_peaks(profiles[:1])
    assert of_product_alone is not None
    assert of_product_alone.gb_per_s is None
    typed = Peaks(name="a CPU", source="measured", gb_per_s=80.0, tflops={"fp16": 1.0}, measured=True)
    assert analyse(profiles[1], typed).rows[0].bound == "memory"  # without a peak of fp32
    assert measured_peaks([*profiles, other.profile()]) is None
    assert measured_peaks([]) is None


def test_tf32_is_held_against_the_tensor_cores_and_fp32_is_not() -> None:
    g = ProfileAuthor("fp32")
    g.product("x", us=10)
    true, tf32 = row(g, precision="fp32"), row(g, precision="tf32")
    assert (true.dtype, tf32.dtype) == ("fp32", "tf32")
    assert (true.share_of_compute_peak or 0) / (tf32.share_of_compute_peak or 1) == pytest.approx(494.7 / 67)


@pytest.mark.parametrize(
    ("device", "name", "fp16", "gb_per_s"),
    [
        ("NVIDIA H200", "H200 SXM", 989.4, 4800),
        ("NVIDIA H100 80GB HBM3", "H100 SXM", 989.4, 3350),
        ("NVIDIA H100 PCIe", "H100 PCIe", 756, 2000),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80 GB", 312, 2039),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80 GB", 312, 1935),
        ("Tesla T4", "T4", 65, 320),
        ("NVIDIA L4", "L4", 121, 300),
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090", 330.3, 1008),
    ],
)
def test_a_gpu_is_known_by_the_name_that_its_driver_gives(device: str, name: str, fp16: float, gb_per_s: float) -> None:
    peaks = peaks_of(device)
    assert peaks is not None
    assert (peaks.name, peaks.of_type("fp16"), peaks.gb_per_s) == (name, fp16, gb_per_s)


@pytest.mark.parametrize("device", [None, "", "Orin", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H200 MIG 1g.18gb"])
def test_another_device_has_no_peaks(device: str | None) -> None:
    assert peaks_of(device) is None


def test_the_table_of_gpus_is_consistent() -> None:
    """A narrower type is no slower, no name stands twice, and each has its source."""
    assert len({peaks.name for peaks in GPUS}) == len(GPUS)
    for peaks in GPUS:
        rates = [rate for kind in ("fp32", "tf32", "bf16", "fp16", "fp8") if (rate := peaks.of_type(kind)) is not None]
        assert rates == sorted(rates), peaks.name
        assert peaks.source
        assert peaks.checked
        assert peaks.of_type("fp8_e4m3") == peaks.of_type("fp8")


@pytest.mark.parametrize(
    ("points", "batch", "low", "text"),
    [
        ({1: 100, 2: 200, 4: 400}, None, 2, "> 4"),  # linear: not full
        ({1: 100, 2: 190, 4: 250, 8: 260, 16: 262}, 4, 2, "4"),
        ({1: 100, 2: 101, 4: 99}, 1, None, "1"),
        ({1: 100, 2: 101, 4: 180, 8: 182}, 4, 2, "4"),  # it grew again after 1
        ({8: 100}, None, None, "-"),
        ({}, None, None, "-"),
    ],
)
def test_a_device_is_full_from_the_batch_after_which_throughput_grows_no_more(
    points: dict[int, float], batch: int | None, low: int | None, text: str
) -> None:
    full = full_from_batch(points)
    assert (full.batch, full.low, str(full)) == (batch, low, text)
