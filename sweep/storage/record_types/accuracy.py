"""Type the error of the outputs against fp32."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from sweep.storage.record_types.values import Count, Magnitude, Number, Share


class ExpectedAccuracy(TypedDict):
    """Give the SQNR that rounding alone explains for this network and these inputs, computed on onnxruntime's CPU.

    Attributes:
        floor_db: the worst of fp32 runs that sum in another order, or whose inputs are off by one unit in the last
            place, dB; None where the network is too large to compute it.
        tf32_db: SQNR with the operands of all products rounded to TF32's 10 mantissa bits, dB; None where it cannot
            be computed.
        expected_db: SQNR of this precision with its rounding emulated, dB: for fp32 the floor; None where it cannot be
            computed.
        note: which figure is an estimate, and which is missing for what reason.
        draws: number of further inputs on which outputs that looked like TF32's were compared; missing where the
            first did not look so.
        tf32_draws: of these, the number on which they looked so again.
    """

    floor_db: Number | None
    tf32_db: Number | None
    expected_db: Number | None
    note: NotRequired[str | None]
    draws: NotRequired[Count]
    tf32_draws: NotRequired[Count]


class AccuracyFigures(TypedDict):
    """Measure the error of the outputs, y, against the reference, r, over all float outputs.

    Attributes:
        sqnr_db: 10 log10(|r|^2 / |r - y|^2), dB; None where the two are equal (max_abs is 0) or cannot be compared.
        unknown: why they cannot be compared; missing where they can.
        max_abs: largest |r - y|.
        max_rel: that over the largest |r|.
        cosine: cosine of r and y.
        cosine_centred: cosine of both less the mean of r over the batch.
        top1_agreement: share of samples with the same arg max, 0 to 1.
        nonfinite: number of NaN and Inf in y; None where shapes differ.
        nonfinite_in_both: of these, the number that is not finite in r either; missing where r is finite.
    """

    sqnr_db: Number | None
    unknown: NotRequired[str]
    max_abs: NotRequired[Magnitude | None]
    max_rel: NotRequired[Magnitude | None]
    cosine: NotRequired[Number | None]
    cosine_centred: NotRequired[Number | None]
    top1_agreement: NotRequired[Share | None]
    nonfinite: NotRequired[Count | None]
    nonfinite_in_both: NotRequired[Count]


class RepeatedAccuracy(AccuracyFigures):
    """Give the worst error of many inferences under a further load.

    Attributes:
        streams: number of streams whose outputs were read.
        stream: stream of the worst outputs.
        looks: outputs that were compared.
        wrong: of them, those that are not finite or lost more than 6 dB.
        inferences: inferences that ran meanwhile.
        identical: every bit of all of them equals the first outputs.
        lost_db: SQNR that the worst lost against the first outputs, dB.
        sqnr_db: 10 log10(|r|^2 / |r - y|^2) of the worst outputs, dB.
        unknown: why these cannot be compared; missing where they can.
        max_abs: largest |r - y|.
        max_rel: that over the largest |r|.
        cosine: cosine of r and y.
        cosine_centred: cosine of both less the mean of r over the batch.
        top1_agreement: share of samples with the same arg max, 0 to 1.
        nonfinite: number of NaN and Inf in y; None where shapes differ.
        nonfinite_in_both: of these, the number that is not finite in r either; missing where r is finite.
    """

    streams: NotRequired[Count]
    stream: NotRequired[Count]
    looks: NotRequired[Count]
    wrong: NotRequired[Count]
    inferences: NotRequired[Count]
    identical: NotRequired[bool]
    lost_db: NotRequired[Number | None]


class Score(TypedDict):
    """Give the top-1 accuracy on labelled samples.

    Attributes:
        score: share that the engine got right, 0 to 1.
        reference_score: share that fp32 got right, 0 to 1.
        scored_on: name of the labelled samples.
    """

    score: Share
    reference_score: Share
    scored_on: str


class SearchedAccuracy(AccuracyFigures):
    """Measure the error of one set of nodes that a search kept in fp32.

    Attributes:
        sqnr_db: 10 log10(|r|^2 / |r - y|^2), dB; None where the two are equal (max_abs is 0) or cannot be compared.
        unknown: why they cannot be compared; missing where they can.
        max_abs: largest |r - y|.
        max_rel: that over the largest |r|.
        cosine: cosine of r and y.
        cosine_centred: cosine of both less the mean of r over the batch.
        top1_agreement: share of samples with the same arg max, 0 to 1.
        nonfinite: number of NaN and Inf in y; None where shapes differ.
        nonfinite_in_both: of these, the number that is not finite in r either; missing where r is finite.
        score: top-1 on labelled samples, 0 to 1; missing where no gate is about it.
        reference_score: top-1 of fp32 on the same samples, 0 to 1.
        scored_on: name of the labelled samples.
    """

    score: NotRequired[Share]
    reference_score: NotRequired[Share]
    scored_on: NotRequired[str]


class Accuracy(AccuracyFigures):
    """Compare the outputs of the session that was timed with those of the fp32 graph for the same inputs.

    Attributes:
        reference: what the reference outputs come from.
        note: what a reader of the figures should know.
        not_compared: names of the outputs that are not compared: integers, strings, sequences, maps; absent for none.
        sqnr_db: 10 log10(|r|^2 / |r - y|^2), dB; None where the two are equal (max_abs is 0) or cannot be compared.
        unknown: why they cannot be compared; missing where they can.
        samples: number of the user's own samples that the outputs were compared on; missing for other inputs, of which
            one batch is compared.
        undiagnosed: why the error says nothing about the precision, such as outputs that are all but 0; missing where
            it says something.
        max_abs: largest |r - y|.
        max_rel: that over the largest |r|.
        cosine: cosine of r and y.
        cosine_centred: cosine of both less the mean of r over the batch.
        top1_agreement: share of samples with the same arg max, 0 to 1.
        nonfinite: number of NaN and Inf in y; None where shapes differ.
        nonfinite_in_both: of these, the number that is not finite in r either; missing where r is finite.
        expected: the SQNR that rounding explains; missing in records of earlier versions.
        again: the worst of many inferences under a further load.
        score: top-1 of the engine on labelled samples, 0 to 1.
        reference_score: top-1 of fp32 on the same samples, 0 to 1.
        scored_on: name of the labelled samples.
    """

    reference: NotRequired[str]
    note: NotRequired[str | None]
    not_compared: NotRequired[list[str]]
    samples: NotRequired[Count]
    undiagnosed: NotRequired[str]
    expected: NotRequired[ExpectedAccuracy]
    again: NotRequired[RepeatedAccuracy | None]
    score: NotRequired[Share]
    reference_score: NotRequired[Share]
    scored_on: NotRequired[str]
