"""Feature rows as an online store takes them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ct_assets.lake.columns import fit_arrow
from ct_assets.lake.engine import quoted

if TYPE_CHECKING:
    from feast import FeatureView

UTC_US = pa.timestamp("us", "UTC")
_TYPES = {
    "STRING": pa.string(),
    "BOOL": pa.bool_(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
}
"""By the name of Feast's type."""


def last_of(keys: Sequence[str]) -> str:
    """SQL that keeps the newest row of each key."""
    named = ", ".join(map(quoted, keys))
    return f"QUALIFY row_number() OVER (PARTITION BY {named} ORDER BY event_timestamp DESC, created DESC) = 1"


def as_declared(view: "FeatureView", rows: pa.Table) -> pa.Table:
    """Rows with every key and feature in the type that the view declares, so that both stores hold the same value.

    Fractions are rounded to a narrower float, as both would do it; everything else stays as it is, or is refused.

    Raises:
        ValueError: The rows lack a column, hold a value that its type does not have, or lack a time.
    """
    declared = {column.name: column.dtype.to_value_type().name for column in [*view.entity_columns, *view.features]}
    if missing := [name for name in declared if name not in rows.column_names]:
        raise ValueError(
            f"rows of view {view.name} lack {', '.join(missing)}; expected every key and feature that the view "
            "declares: let its SQL yield them"
        )
    for name in ("event_timestamp", "created"):
        if rows[name].null_count:
            raise ValueError(
                f"view {view.name}: {rows[name].null_count} of {len(rows)} rows have no {name}; expected one in each: "
                "let its SQL leave out rows without"
            )
    for place, name in enumerate(rows.column_names):
        values, kind = rows[name].combine_chunks(), _TYPES.get(declared.get(name, ""))
        if kind is None or values.type == kind:
            continue
        if pa.types.is_floating(values.type) and pa.types.is_floating(kind):
            rows = rows.set_column(place, name, values.cast(kind))
            continue
        fitted = fit_arrow(values, kind)
        if fitted.bad.any():
            row = int(fitted.bad.argmax())
            raise ValueError(
                f"view {view.name}: {name} is declared as {declared[name]} and its SQL yields {values.type}; "
                f"{int(fitted.bad.sum())} of {len(rows)} values do not fit, such as {values[row]}: CAST or round it in "
                "the SQL, or declare another type"
            )
        rows = rows.set_column(place, name, fitted.array)
    return rows


def as_online(view: "FeatureView", rows: pa.Table) -> list[Any]:
    """Rows of `as_declared` as an online store takes them: key, values by feature, event time, created time.

    Whole numbers go there as they are, and not by way of pandas, which would make floats of those beside a null.
    """
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.type_map import python_values_to_proto_values

    if not rows.num_rows:
        return []
    wanted = [*view.entity_columns, *view.features]
    values = {c.name: python_values_to_proto_values(rows[c.name].to_pylist(), c.dtype.to_value_type()) for c in wanted}
    names, features = [column.name for column in view.entity_columns], [feature.name for feature in view.features]
    times = rows["event_timestamp"].cast(UTC_US).to_pylist(), rows["created"].cast(UTC_US).to_pylist()
    return [
        (
            EntityKey(join_keys=names, entity_values=[values[name][row] for name in names]),
            {name: values[name][row] for name in features},
            event,
            created,
        )
        for row, (event, created) in enumerate(zip(*times, strict=True))
    ]
