"""The parity check as Dagster shows it: `online_matches_offline` of a model's `scored`.

Its severity is ERROR, as a model that is served other features than it was judged by is a fault, and it does not
block: the day's scores are right either way.
"""

from collections.abc import Sequence

import dagster as dg

from ct_assets.core.spec import ModelSpec
from ct_assets.lib.model_assets import model_key
from ct_assets.lib.parity import MOST_UNEQUAL, Compared

ONLINE_MATCHES_OFFLINE = "online_matches_offline"
NOTHING = (
    "nothing was compared: no prediction was logged, and there were no events, or the group is recorded and the "
    "partition begins on no Monday"
)
_SHOWN = 20


def parity_check(spec: ModelSpec) -> dg.AssetCheckSpec:
    """The check's specification."""
    return dg.AssetCheckSpec(
        ONLINE_MATCHES_OFFLINE,
        asset=model_key(spec, "scored"),
        description="Features online are those of the offline join, in a sample of the day's predictions and events: "
        f"of each feature at most {MOST_UNEQUAL:.0%} of the rows differ.",
    )


def parity_result(spec: ModelSpec, compared: Sequence[Compared], problem: str = "") -> dg.AssetCheckResult:
    """The check's result.

    Args:
        spec: The model.
        compared: Each feature, compared in each way.
        problem: What kept it from comparing.
    """
    failing = sorted((each for each in compared if each.fails), key=lambda each: -each.share)
    worst = max(compared, key=lambda each: each.share, default=None)
    differing = sorted((each for each in compared if each.unequal), key=lambda each: -each.share)[:_SHOWN]
    rows = {f"rows_{how}": max(each.rows for each in compared if each.how == how) for how in _ways(compared)}
    words = "; ".join(map(str, failing[:_SHOWN])) if compared else NOTHING
    return dg.AssetCheckResult(
        asset_key=model_key(spec, "scored"),
        check_name=ONLINE_MATCHES_OFFLINE,
        passed=not failing and not problem,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"The online features cannot be read: {problem}" if problem else words or None,
        metadata={
            **rows,
            "features": len({each.feature for each in compared}),
            "features_failing": len({each.feature for each in failing}),
            "largest_share_unequal": worst.share if worst else 0.0,
            "limit": MOST_UNEQUAL,
            **({"differing": _table(differing)} if differing else {}),
        },
    )


def _ways(compared: Sequence[Compared]) -> list[str]:
    return list(dict.fromkeys(each.how for each in compared))


def _table(compared: Sequence[Compared]) -> dg.MarkdownMetadataValue:
    lines = ["| feature | compared | rows | unequal | missing online |", "|---|---|---|---|---|"]
    lines += [
        f"| {c.feature} | {c.how} | {c.rows} | {c.unequal} ({c.share:.1%}) | {c.missing} ({c.missing / c.rows:.1%}) |"
        for c in compared
    ]
    return dg.MetadataValue.md("\n".join(lines))
