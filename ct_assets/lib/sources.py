"""From a `Source` to its assets: the landing folder, the dataset and its blocking contract check."""

import dagster as dg
import pandas as pd
import pyarrow as pa

from ct_assets.lake.contract import Source
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.ingest import Batch, ingest, open_rejections
from ct_assets.lib.conditions import on_arrival
from ct_assets.lib.partitions import arrival_partitions, start_of
from ct_assets.resources.lake import LakeResource

CONTRACT = "contract"


def landing_key(source: Source) -> dg.AssetKey:
    """Key of the external asset that stands for a source's landing folder."""
    return dg.AssetKey(["landing", source.name])


def build_source(source: Source) -> dg.Definitions:
    """The assets of one source."""
    partitions = arrival_partitions(source.domain) if source.daily else None
    landing = dg.AssetSpec(
        landing_key(source),
        description=f"Files of `{source.name}` as they land; reported by the arrival sensor.",
        group_name=source.domain.name,
        owners=[source.owner],
        kinds={"file"},
        partitions_def=partitions,
    )

    @dg.asset(
        name=source.name,
        deps=[landing],
        description=source.description,
        group_name=source.domain.name,
        owners=[source.owner],
        kinds={"parquet", "pandera"},
        partitions_def=partitions,
        automation_condition=on_arrival(),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=source.fresh_within),
        check_specs=[
            dg.AssetCheckSpec(
                CONTRACT,
                asset=source.name,
                blocking=True,
                partitions_def=partitions,
                description="Every batch that landed keeps the contract, and no rejected one waits in quarantine.",
            )
        ],
    )
    def dataset(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
        partition = context.partition_key if source.daily else WHOLE
        batches = ingest(lake.lake(), source, partition)
        _record(lake, batches)
        return _result(lake, source, partition, batches)

    return dg.Definitions(assets=[landing, dataset])


def _record(lake: LakeResource, batches: list[Batch]) -> None:
    for batch in batches:
        if batch.status != "accepted":
            lake.ledger().append(
                batch.status,
                batch.source,
                start_of(batch.partition) if batch.partition != WHOLE else pd.Timestamp(0, tz="UTC"),
                {"file": batch.name, "digest": batch.digest, "rows": batch.rows, "reasons": list(batch.reasons)},
                key=f"{batch.status}/{batch.source}/{batch.partition}/{batch.name}/{batch.digest}",
            )


def _result(lake: LakeResource, source: Source, partition: str, batches: list[Batch]) -> dg.MaterializeResult:
    files = lake.lake().dataset(source.name).partition(partition)
    # Not this run's alone: one that finds no file must not turn the check green.
    reasons = open_rejections(lake.lake(), source, partition)
    digests = "-".join(sorted(f.digest[:16] for f in files)) or "empty"
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(f.rows for f in files),
            "dagster/column_schema": column_schema(source),
            "batches": {b.name: b.status for b in batches},
        },
        data_version=dg.DataVersion(digests),
        check_results=[
            dg.AssetCheckResult(
                check_name=CONTRACT,
                passed=not reasons,
                description="Land a fixed file, or use `ct quarantine list` and then `release` or `drop`."
                if reasons
                else None,
                metadata={
                    "quarantined": sum(b.status == "quarantined" for b in batches),
                    "reasons": dg.MetadataValue.md("\n".join(f"- {r}" for r in reasons)),
                },
            )
        ],
    )


def column_schema(source: Source) -> dg.TableSchema:
    """The contract's columns as Dagster shows them."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, str(column.dtype), constraints=dg.TableColumnConstraints(nullable=column.nullable))
            for name, column in source.schema.columns.items()
        ]
    )


def arrow_schema(schema: pa.Schema) -> dg.TableSchema:
    """An Arrow schema as Dagster shows it."""
    return dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in schema])
