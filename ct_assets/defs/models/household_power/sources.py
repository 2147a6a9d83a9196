"""What the meter promises."""

from datetime import date

import pandera.pandas as pa

from ct_assets.lake.contract import Domain, Source

# Kilowatts (the connection allows 12), kilovolt-amperes, volts, amperes, and watt-hours within the minute.
HIGHEST = {"active_power": 20, "reactive_power": 20, "voltage": 280, "intensity": 90}
HIGHEST |= dict.fromkeys(("kitchen_wh", "laundry_wh", "heater_wh"), 200)
MEASURED = {name: pa.Column(float, pa.Check.in_range(0, top), nullable=True) for name, top in HIGHEST.items()}
METER = Source(
    name="meter",
    schema=pa.DataFrameSchema(
        {"household": pa.Column(object), "known_at": pa.Column("datetime64[us, UTC]"), **MEASURED}
    ),
    key=("household", "known_at"),
    description="Readings of a household's meter, a minute each, known at its end; without values where it was silent.",
    owner="team:power",
    domain=Domain("power", date(2006, 12, 17), date(2010, 11, 25)),
    min_rows=1380,  # of 1440: the record lacks an hour of the days on which clocks go back
    format="csv",
    delimiter=";",
)
