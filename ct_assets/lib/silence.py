"""Sources that have sent nothing for longer than they should: evidence of a decision, in event time."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import pandas as pd

from ct_assets.core.spec import ModelSpec
from ct_assets.lake.contract import Source
from ct_assets.lake.examples import DAY, day_of
from ct_assets.lake.lake import Lake

FRESH_WITHIN = timedelta(days=2)
"""For sources whose contract is not at hand."""


def freshness_of(spec: ModelSpec, sources: Sequence[Source]) -> dict[str, timedelta]:
    """How long each source of a model may be silent: those of its events and labels, and of its features.

    Args:
        spec: The model.
        sources: Those that it reads; reference tables change when they do, and are left out.
    """
    reads = {source.name: source.fresh_within for source in sources if source.daily}
    named = dict.fromkeys((spec.events.source, spec.label.source), FRESH_WITHIN)
    reference = {source.name for source in sources if not source.daily}
    return {name: limit for name, limit in sorted((named | reads).items()) if name not in reference}


def silent_sources(lake: Lake, fresh_within: Mapping[str, timedelta], as_of: pd.Timestamp) -> tuple[str, ...]:
    """A sentence for each source that is silent at a time, and since when.

    Args:
        lake: Where accepted rows are.
        fresh_within: Source to how long it may be silent.
        as_of: Rows that became known from then on are not seen.
    """
    return tuple(_sentences(lake, fresh_within, as_of))


def _sentences(lake: Lake, fresh_within: Mapping[str, timedelta], as_of: pd.Timestamp) -> Iterable[str]:
    for name, limit in fresh_within.items():
        newest = _newest(lake, name, as_of, day_of(as_of - limit)) or _newest(lake, name, as_of, None)
        if newest is None:
            yield f"{name} has never sent a row"
        elif as_of - newest > limit:
            days = (as_of - newest) / DAY
            yield f"{name} is silent since {newest.isoformat()}: {days:.3g} days, expected within {limit / DAY:g}"


def _newest(lake: Lake, name: str, as_of: pd.Timestamp, first: str | None) -> pd.Timestamp | None:
    files = lake.dataset(name).files(first, day_of(as_of))
    spans = [(pd.Timestamp(f.min_time), pd.Timestamp(f.max_time)) for f in files if f.min_time and f.max_time]
    return max((min(newest, as_of) for oldest, newest in spans if oldest <= as_of), default=None)
