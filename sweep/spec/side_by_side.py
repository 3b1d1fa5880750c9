"""Take a variant with networks beside it apart: each network as it is alone, and as it is beside the others."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sweep.spec.session import Neighbour
from sweep.spec.variant import Variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sweep.spec.session import SessionAxes
    from sweep.spec.sharing import Sharing


def alone(variant: Variant) -> Variant:
    """Return the variant of the same network, settings and load with the whole device for itself."""
    session = variant.session
    if session.beside is None:
        return variant
    return dataclasses.replace(
        variant, session=dataclasses.replace(session, beside=None, sharing=None, mps=None, sm_count=None)
    )


def members_of(variant: Variant) -> list[Variant]:
    """Return all networks that run at once, each as it is alone; the one that is measured comes first."""
    return [
        alone(variant),
        *(
            Variant(backend=variant.backend, onnx=each.onnx, engine=each.engine, session=each.session, load=each.load)
            for each in variant.session.beside or ()
        ),
    ]


def member(variant: Variant, number: int) -> Variant:
    """Return network `number` of those that run at once, with its share and with the others beside it.

    Args:
        variant: the one that is measured, number 0.
        number: of the network, in the order of `members_of`.
    """
    shared = variant.session.shared
    if number == 0 or shared is None:
        return variant
    members = members_of(variant)
    own = members.pop(number)
    return beside(own, members, shared.with_first(number).text)


def with_share(session: SessionAxes, shared: Sharing) -> SessionAxes:
    """Return `session` with its own share of the device, the first one; the same where there are no shares."""
    if shared.kind == "mps":
        return dataclasses.replace(session, mps=shared.shares[0])
    return dataclasses.replace(session, sm_count=shared.shares[0]) if shared.kind == "green" else session


def beside(variant: Variant, others: Sequence[Variant], sharing: str, slos: Sequence[str | None] = ()) -> Variant:
    """Return `variant` with other networks beside it, and with its share.

    Args:
        variant: as it is alone.
        others: as each is alone.
        sharing: how they share the device, its own share first.
        slos: of each of the others; () for none.
    """
    neighbours = tuple(
        Neighbour(onnx=other.onnx, engine=other.engine, session=other.session, load=other.load, slo=slo)
        for other, slo in zip(others, slos or [None] * len(others), strict=True)
    )
    session = dataclasses.replace(variant.session, beside=neighbours, sharing=sharing)
    shared = session.shared
    if shared is not None:
        session = with_share(session, shared)
    return dataclasses.replace(variant, session=session)
