"""Why one engine is slower than another: layers are joined by the nodes that they compute."""

from profiled_layers import FP16, INT8, layer, source

from sweep.report.layers import differ


def test_layers_that_share_nodes_are_one_group_and_the_rest_is_named() -> None:
    difference = differ(source("net fp16 b8", *FP16), source("net int8 b8", *INT8))
    groups = {group.name: group for group in difference.groups}
    assert [group.name for group in difference.groups][:2] == ["block1/conv_q", "reformat"]
    conv = groups["block1/conv"]
    assert ([row.name for row in conv.a], [row.name for row in conv.b]) == (["conv1+relu1"], ["conv1", "relu1"])
    assert (conv.what, conv.presence, conv.a_us, conv.b_us, conv.ratio) == ("Conv", "both", 100.0, 90.0, 0.9)
    assert (groups["block1/conv_q"].what, groups["block1/conv_q"].presence) == ("quantise/dequantise", "B")
    assert (groups["reformat"].what, groups["reformat"].presence) == ("reformat", "B")
    assert difference.headline == (
        "B (int8) is 1.4 times slower than A (fp16) (225 us against 160 us): of the 65.0 us more, "
        "60.0 us are in 1 quantise/dequantise layer that A does not have."
    )
    changes = {(cause.what, cause.presence): cause.change_us for cause in difference.causes}
    assert changes == {
        ("quantise/dequantise", "B"): 60.0,
        ("reformat", "B"): 15.0,
        ("Conv", "both"): -30.0,
        ("elementwise", "B"): 20.0,
        ("outside the layers", "both"): 0.0,
    }
    assert sum(changes.values()) == difference.b_us - difference.a_us


def test_what_one_side_fuses_and_the_other_does_not_is_told_with_the_types() -> None:
    _, ops = FP16
    slow = [
        layer("conv1", 150.0, "block1/conv", "block1/conv_dq", dtype="fp8"),
        layer("MulReluCast", 90.0, "block1/relu", "block1/relu_q"),
        layer("conv2", 50.0, "block2.conv"),
    ]
    typed = {**ops, "block1/conv_dq": "DequantizeLinear", "block1/relu_q": "QuantizeLinear"}
    assert differ(source("net fp16", *FP16), source("net fp8", slow, typed)).headline == (
        "B (fp8) is 1.9 times slower than A (fp16) (300 us against 160 us): of the 140 us more, 90.0 us are in 1 "
        "elementwise layer that A fuses into others, 50.0 us are in 2 Conv layers (1.3 times the time, fp8 against "
        "fp16)."
    )


def test_the_other_way_round_the_same_layers_make_it_faster() -> None:
    assert differ(source("net int8 b8", *INT8), source("net fp16 b8", *FP16)).headline == (
        "B (fp16) is 1.4 times faster than A (int8) (160 us against 225 us): of the 65.0 us less, "
        "60.0 us are in 1 quantise/dequantise layer that B does not have."
    )


def test_of_other_batches_times_are_those_of_a_sample() -> None:
    layers, ops = FP16
    slow = [layer("conv1+relu1", 40.0, "block1/conv", "block1/relu"), layer("conv2", 10.0, "block2.conv")]
    difference = differ(source("net b1", slow, ops, batch=1), source("net b8", layers, ops, timed_us=160.0))
    assert (difference.a_us, difference.b_us, difference.unit) == (60.0, 20.0, "a sample")
    assert difference.headline.startswith("B (b8) is 3.0 times faster than A (b1) (20.0 us against 60.0 us a sample)")
    assert difference.notes[0] == "The batches differ (1 and 8): all times are of one sample."
    assert [group.a_us + group.b_us for group in difference.groups] == [52.5, 16.25]


def test_what_the_layers_do_not_explain_lies_outside_them() -> None:
    headline = differ(source("net", *FP16), source("net", *FP16, timed_us=320.0)).headline
    assert headline == (
        "B is 2.0 times slower than A (320 us against 160 us): of the 160 us more, 160 us are outside the layers "
        "(170 us against 10.0 us)."
    )


def test_gains_and_losses_that_cancel_are_told() -> None:
    layers, ops = FP16
    other = [layer("conv1", 60.0, "block1/conv", "block1/relu"), layer("conv2", 50.0, "block2.conv"), layer("r", 40.0)]
    assert differ(source("net", layers, ops), source("net", other, ops)).headline == (
        "B takes as long as A (160 us against 160 us); within it, 40.0 us more in 1 reformat layer that A does not "
        "have, 40.0 us less in 2 Conv layers (0.73 times the time)."
    )


def test_a_loss_above_the_whole_difference_stands_beside_the_gain() -> None:
    layers, ops = FP16
    other = [layer("conv1", 40.0, "block1/conv", "block1/relu"), layer("conv2", 50.0, "block2.conv"), layer("r", 90.0)]
    assert differ(source("net", layers, ops), source("net", other, ops)).headline == (
        "B is 1.2 times slower than A (190 us against 160 us): 90.0 us more in 1 reformat layer that A does not have, "
        "60.0 us less in 2 Conv layers (0.6 times the time)."
    )


def test_layers_of_the_library_are_joined_by_name() -> None:
    layers, ops = FP16
    slower = [*layers, layer("reformat 3", 30.0)]
    difference = differ(source("net", [*layers, layer("reformat 3", 10.0)], ops), source("net", slower, ops))
    first = difference.groups[0]
    assert (first.name, first.presence, first.ratio) == ("reformat 3", "both", 3.0)
    assert difference.causes[0].presence == "both"


def test_a_node_that_many_layers_compute_joins_none_of_them() -> None:
    ops = {"scale": "Constant", **{f"n{n}": "Conv" for n in range(6)}}
    layers = [layer(f"l{n}", 10.0, f"n{n}", "scale") for n in range(6)]
    assert len(differ(source("net", layers, ops), source("net", layers, ops)).groups) == 6


def test_two_networks_and_two_ways_of_timing_are_told() -> None:
    other = source("other", [layer("gemm", 5.0, "m")], {"m": "MatMul"}, source="cupti", cuda_graph=True)
    notes = differ(source("net", *FP16), other).notes
    assert [note.partition(" ")[0] + note[-1] for note in notes] == ["The.", "One.", "No."]
    assert "two networks" in notes[2]
