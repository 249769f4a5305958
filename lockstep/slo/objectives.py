"""What the contracts promise of freshness, fill rate, drift, latency and availability. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from lockstep.errors import ConfigError, DeclarationError
from lockstep.view import FeatureView


@dataclass(frozen=True)
class ViewObjective:
    """What one view promises.

    Attributes:
        freshness: Largest tolerated lag of its data's event time.
        latency: Largest tolerated time of a fetch.
        share: Share of requests, cells and time for which that holds, above 0 and below 1.
        fill_rates: Feature → least share of rows with a value; only features that declare one.
        max_psi: Feature → largest tolerated PSI; only features that declare one.
        drift: Whether a feature declares a limit of its drift: max_psi or max_kl.
    """

    view: str
    owner: str
    freshness: timedelta
    latency: timedelta
    share: float
    fill_rates: Mapping[str, float]
    max_psi: Mapping[str, float]
    drift: bool


@dataclass(frozen=True)
class ServiceObjective:
    """What the feature service owes to all views together: its histogram knows no views.

    Attributes:
        share: The largest share that one of the views promises.
        owner: Who answers for it.
        views: The views whose promise it is, sorted.
    """

    share: float
    owner: str
    views: Sequence[str]


@dataclass(frozen=True)
class FetchObjective(ServiceObjective):
    """How fast fetches are, by one bucket of the histogram.

    Attributes:
        bucket: Upper bound of the bucket in seconds: the nearest at or below what is promised.
        latencies: View → what it promises.
    """

    bucket: float
    latencies: Mapping[str, timedelta]


@dataclass(frozen=True)
class Objectives:
    """Every objective of a project; views by name, fetches by bucket."""

    views: Sequence[ViewObjective]
    fetches: Sequence[FetchObjective]
    service: ServiceObjective


def objectives(views: Iterable[FeatureView], buckets: Sequence[float], owner: str) -> Objectives:
    """Return what the views promise.

    Args:
        views: At least one.
        buckets: Upper bounds of the histogram of fetches, in seconds, ascending.
        owner: Who answers for the feature service.

    Raises:
        ConfigError: There is no view.
        DeclarationError: A view promises a latency below the smallest bucket.
    """
    found = sorted((_of_view(view) for view in views), key=lambda each: each.view)
    if not found:
        raise ConfigError(
            "There is no view, and so no objective.",
            fix="Declare a view first: `lockstep new view NAME`.",
            effect="Nothing was written.",
        )
    _require_measurable(found, buckets[0])
    by_bucket: dict[float, list[ViewObjective]] = {}
    for each in found:
        bound = max(b for b in buckets if b <= each.latency.total_seconds())
        by_bucket.setdefault(bound, []).append(each)
    return Objectives(
        views=found,
        fetches=[_of_fetches(bound, by_bucket[bound], owner) for bound in sorted(by_bucket)],
        service=_of_service(found, owner),
    )


def _of_view(view: FeatureView) -> ViewObjective:
    contract = view.contract
    features = contract.features.items()
    return ViewObjective(
        view=view.name,
        owner=contract.owner,
        freshness=contract.freshness,
        latency=contract.latency,
        share=contract.objective,
        fill_rates={name: f.fill_rate for name, f in features if f.fill_rate is not None},
        max_psi={name: f.max_psi for name, f in features if f.max_psi is not None},
        drift=any(f.max_psi is not None or f.max_kl is not None for _, f in features),
    )


def _require_measurable(found: Sequence[ViewObjective], smallest: float) -> None:
    problems = [
        f"View {each.view!r} promises latency={each.latency}, but fetches are measured in steps "
        f"from {smallest * 1000:g} ms. Promise at least that."
        for each in found
        if each.latency.total_seconds() < smallest
    ]
    if problems:
        raise DeclarationError([*problems, "Nothing was written."])


def _of_service(promising: Sequence[ViewObjective], owner: str) -> ServiceObjective:
    return ServiceObjective(
        share=max(each.share for each in promising),
        owner=owner,
        views=[each.view for each in promising],
    )


def _of_fetches(bound: float, promising: Sequence[ViewObjective], owner: str) -> FetchObjective:
    latencies = {each.view: each.latency for each in promising}
    return FetchObjective(**vars(_of_service(promising, owner)), bucket=bound, latencies=latencies)
