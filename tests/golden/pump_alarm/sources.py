"""What the pumps send."""

from datetime import date

import pandera.pandas as pa

from ct_assets.lake.contract import Domain, Source

OWNER = "team:pumps"
PUMPS = Domain("pumps", first_day=date(2024, 2, 1), last_day=date(2024, 2, 29))
TEXT, TIMESTAMP = pa.Column(object), pa.Column("datetime64[us, UTC]")
READINGS = Source(
    name="readings",
    schema=pa.DataFrameSchema(
        {"reading_id": pa.Column("int64"), "pump": TEXT, "kind": TEXT, "heat": pa.Column(float), "known_at": TIMESTAMP}
    ),
    key=("reading_id",),
    description="One reading of a pump a row.",
    owner=OWNER,
    domain=PUMPS,
    format="csv",
)
ALARMS = Source(
    name="alarms",
    schema=pa.DataFrameSchema({"reading_id": pa.Column("int64"), "alarm": pa.Column("int64"), "known_at": TIMESTAMP}),
    key=("reading_id",),
    description="Whether a reading was followed by an alarm within twelve hours.",
    owner=OWNER,
    domain=PUMPS,
    format="csv",
)
SOURCES = (READINGS, ALARMS)
