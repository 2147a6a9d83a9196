"""Feature rows as an online store takes them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ct_assets.lake.engine import quoted

if TYPE_CHECKING:
    from feast import FeatureView

UTC_US = pa.timestamp("us", "UTC")


def last_of(keys: Sequence[str]) -> str:
    """SQL that keeps the newest row of each key."""
    named = ", ".join(map(quoted, keys))
    return f"QUALIFY row_number() OVER (PARTITION BY {named} ORDER BY event_timestamp DESC, created DESC) = 1"


def as_online(view: "FeatureView", rows: pa.Table) -> list[Any]:
    """Rows as an online store takes them: key, values by feature, event time, created time.

    Whole numbers go there as they are, and not by way of pandas, which would make floats of those beside a null.

    Raises:
        ValueError: The rows lack a key or a feature of the view.
    """
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.type_map import python_values_to_proto_values

    if not rows.num_rows:
        return []
    wanted = [*view.entity_columns, *view.features]
    if missing := [column.name for column in wanted if column.name not in rows.column_names]:
        raise ValueError(
            f"rows of view {view.name} lack {', '.join(missing)}; expected every key and feature that the view "
            "declares: let its SQL yield them"
        )
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
