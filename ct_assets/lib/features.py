"""From SQL to feature views: new rows as known at that time, in the lake and in the online store."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import pyarrow as pa

from ct_assets.lake.contract import Source
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.declaration import check_names
from ct_assets.lake.engine import fetch
from ct_assets.lake.lake import Lake, Window
from ct_assets.lib.conditions import on_accepted_data
from ct_assets.lib.partitions import arrival_partitions, day_before, end_of, next_partition, start_of
from ct_assets.lib.publishing import Published, availability, publish
from ct_assets.lib.sources import arrow_schema
from ct_assets.resources.feast import FeastResource
from ct_assets.resources.lake import LakeResource

if TYPE_CHECKING:
    from feast import FeatureStore

KEYS_PRESENT = "keys_present"

__all__ = ["FeatureSet", "FeatureSql", "build_features", "compute", "feature_key", "publish"]


@dataclass(frozen=True)
class FeatureSql:
    """How the rows of one view are computed.

    Attributes:
        sql: DuckDB SQL over the source; yields the join keys, `event_timestamp`, `created` and the features, in this
            order. `$start` and `$end` bound the moments that are new.
        uses: Source columns that the features are made of, for column lineage.
    """

    sql: str
    uses: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Digest of the SQL, whatever its indentation."""
        return hashlib.sha256(dedent(self.sql).strip().encode()).hexdigest()[:16]


@dataclass(frozen=True)
class FeatureSet:
    """All views that are computed from one source, in one step.

    Attributes:
        source: Where the rows come from.
        views: View name to its SQL.
        lookback_days: How many earlier arrival days the longest window reaches into.
        owner: `team:name` or an e-mail address.
        publication_delay: How long after their `created` rows of a recorded group, or from before a live group went
            live, count as available online: the time that arrival, computation and publication take. When left out,
            zero for a recorded group, whose predictions are asked for once the features are there; for the past of a
            live one what its live publications took, in the median, and five minutes before the first of them.

    Raises:
        DeclarationError: A view's name is none that paths and Dagster take.
    """

    source: Source
    views: Mapping[str, FeatureSql]
    owner: str
    lookback_days: int = 0
    publication_delay: timedelta | None = None

    def __post_init__(self) -> None:
        check_names(f"features of source {self.source.name!r}, view", self.views)


def feature_key(view: str) -> dg.AssetKey:
    """Key of the asset that holds a view's rows."""
    return dg.AssetKey(["features", view])


def build_features(features: FeatureSet) -> dg.Definitions:
    """The assets of one feature set; they are made together, since one scan serves all.

    The condition stands on the first of them alone: Dagster requests the others along with it.
    """
    source = features.source
    partitions = arrival_partitions(source.domain) if source.daily else None
    first = next(iter(features.views))
    specs = [
        dg.AssetSpec(
            feature_key(view),
            deps=[source.name],
            description=f"Feature view `{view}`: rows as known at that time, and the newest of them online.",
            group_name=source.domain.name,
            owners=[features.owner],
            kinds={"duckdb", "feast"},
            partitions_def=partitions,
            automation_condition=on_accepted_data() if view == first else None,
            freshness_policy=dg.FreshnessPolicy.time_window(fail_window=source.fresh_within),
        )
        for view in features.views
    ]

    checks = [
        dg.AssetCheckSpec(
            KEYS_PRESENT,
            asset=feature_key(view),
            partitions_def=partitions,
            description="Every row has its entity keys: one without is left out, as no request can ask for it.",
        )
        for view in features.views
    ]

    @dg.multi_asset(name=f"features_of_{source.name}", specs=specs, check_specs=checks)
    def rows(
        context: dg.AssetExecutionContext, lake: LakeResource, feast: FeastResource
    ) -> Iterator[dg.MaterializeResult]:
        partition = context.partition_key if source.daily else WHOLE
        tables = compute(lake.lake(), features, partition)
        store = feast.store()
        # All before the first is reported: what waits for one of the views that are made together takes all for made.
        published = {view: _publish(lake.lake(), store, features, view, partition, t) for view, t in tables.items()}
        for view, table in tables.items():
            yield _result(features, view, table, published[view])
        for late, changed in _changed_by(lake.lake(), store, features, partition):
            for view, table in changed.items():
                metadata = _metadata(features, view, table)
                context.log_event(dg.AssetMaterialization(feature_key(view), partition=late, metadata=metadata))

    return dg.Definitions(assets=[rows])


def _publish(
    lake: Lake, store: "FeatureStore", features: FeatureSet, view: str, partition: str, table: pa.Table
) -> Published:
    # Asked for under the lock: of two processes that publish for the first time, the second one adds to the first.
    available = partial(availability, lake, features.source.domain, view, partition, features.publication_delay)
    return publish(lake, store, view, partition, table, features.views[view].digest, available)


def _changed_by(
    lake: Lake, store: "FeatureStore", features: FeatureSet, partition: str
) -> Iterator[tuple[str, dict[str, pa.Table]]]:
    """Compute again the later partitions whose windows reach back to one that came late, or was made again.

    In the usual order there are none. What is new is published as rows of the later partition.

    Returns:
        Later partitions with the rows of the views that have changed.
    """
    if partition == WHOLE or not features.lookback_days:
        return
    reach = day_before(next_partition(partition), -features.lookback_days)
    files = lake.dataset(features.source.name).files(next_partition(partition), reach)
    for late in sorted({file.partition for file in files}):
        changed = {}
        for view, table in compute(lake, features, late).items():
            dataset = lake.dataset(f"features/{view}", "event_timestamp")
            before = dataset.partition(late)
            # One that has not been computed yet will be.
            if before:
                _publish(lake, store, features, view, late, table)
                if dataset.partition(late) != before:
                    changed[view] = table
        yield late, changed


def compute(lake: Lake, features: FeatureSet, partition: str) -> dict[str, pa.Table]:
    """The feature rows that one arrival brings about.

    Args:
        lake: Where the source's rows are.
        features: What to compute.
        partition: Arrival partition, or `WHOLE` for a reference table.

    Returns:
        View name to rows. Cost depends on the new rows and the longest window, not on the length of history.
    """
    if partition == WHOLE:
        window, start, end = Window(), pd.Timestamp(0, tz="UTC"), pd.Timestamp("2200-01-01", tz="UTC")
    else:
        # Without new rows there is nothing whose windows would reach back.
        news = any(file.rows for file in lake.dataset(features.source.name).partition(partition))
        window = Window(day_before(partition, features.lookback_days if news else 0), partition)
        end = end_of(partition)
        start = start_of(partition)
    with lake.connect() as connection:
        lake.expose(connection, {features.source.name: window}, end)
        name = features.source.name
        connection.execute(f'CREATE TEMP TABLE rows_of_source AS SELECT * FROM "{name}"')
        connection.execute(f'CREATE OR REPLACE TEMP VIEW "{name}" AS SELECT * FROM rows_of_source')
        return {view: fetch(connection, how.sql, {"start": start, "end": end}) for view, how in features.views.items()}


def _result(features: FeatureSet, view: str, table: pa.Table, published: Published) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        asset_key=feature_key(view),
        metadata={**_metadata(features, view, table), "published_rows": published.rows},
        check_results=[_keys_present(view, table.num_rows, published.without_key)],
    )


def _metadata(features: FeatureSet, view: str, table: pa.Table) -> dict[str, Any]:
    uses = [dg.TableColumnDep(dg.AssetKey(features.source.name), column) for column in features.views[view].uses]
    return {
        "dagster/row_count": table.num_rows,
        "dagster/column_schema": arrow_schema(table.schema),
        "dagster/column_lineage": dg.TableColumnLineage({name: uses for name in table.column_names}),
    }


def _keys_present(view: str, rows: int, without_key: int) -> dg.AssetCheckResult:
    advice = (
        f"{without_key} of {rows} rows of view {view} have no entity key and are neither stored nor online; expected "
        "none: leave them out in the view's SQL, or have the source send the key"
    )
    return dg.AssetCheckResult(
        asset_key=feature_key(view),
        check_name=KEYS_PRESENT,
        passed=not without_key,
        severity=dg.AssetCheckSeverity.WARN,
        description=advice if without_key else None,
        metadata={"rows": rows, "rows_without_key": without_key, "share": without_key / rows if rows else 0.0},
    )
