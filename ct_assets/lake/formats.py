"""What landing files may be: Parquet, Arrow, CSV and JSON lines, each read into the types of its source's contract."""

import io
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.json as pc_json
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from ct_assets.lake.contract import Source

ARROW_TYPES: Mapping[str, pa.DataType] = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "object": pa.string(),
}
"""Arrow's type for a type of a contract; timestamps are apart."""
DELIMITERS = (",", ";", "\t", "|")
"""What usually stands between the values of a CSV file."""
MOMENT = pa.timestamp("us", "UTC")
_ZONE = re.compile(r"(?:Z|[+-]\d{2}:?\d{2})$")


class UnreadableError(ValueError):
    """A file that is not what its source sends."""


def read(source: "Source", payload: bytes) -> pa.Table:
    """Read a landing file.

    Args:
        source: Says the format, and the types of the columns where the format has none.
        payload: The file.

    Returns:
        The rows with the file's own columns; those of the contract have its types.

    Raises:
        UnreadableError: The file is not whole, or of another format, or a moment in it has no time zone.
    """
    try:
        table = _READERS[source.format](source, payload)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        what = {"parquet": "Parquet", "arrow": "Arrow", "csv": "CSV", "json": "JSON lines"}[source.format]
        advice = "; or, if that stands for a missing value, name it in the source's `missing`"
        raise UnreadableError(
            f"not a whole {what} file of {len(payload)} bytes ({error}); it was cut off or is something else: ask the "
            "sender to resend it" + (advice if source.format == "csv" else "")
        ) from error
    if twice := sorted({name for name in table.column_names if table.column_names.count(name) > 1}):
        raise UnreadableError(f"column(s) {', '.join(twice)} are there twice: ask the sender to name each once")
    return table if source.format in ("parquet", "arrow") else _with_moments(source, table)


def _parquet(_source: "Source", payload: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(payload))


def _arrow(_source: "Source", payload: bytes) -> pa.Table:
    opened = pa.ipc.open_file if payload.startswith(b"ARROW1") else pa.ipc.open_stream
    with opened(io.BytesIO(payload)) as reader:
        return reader.read_all()


def _csv(source: "Source", payload: bytes) -> pa.Table:
    table = pc_csv.read_csv(
        io.BytesIO(payload),
        read_options=pc_csv.ReadOptions(encoding=source.encoding),
        parse_options=pc_csv.ParseOptions(delimiter=source.delimiter, newlines_in_values=True),
        convert_options=pc_csv.ConvertOptions(
            column_types=_plain_types(source), null_values=list(source.missing), strings_can_be_null=True
        ),
    )
    found = [mark for mark in DELIMITERS if mark != source.delimiter and mark in table.column_names[0]]
    if table.num_columns == 1 < len(source.schema.columns) and found:
        raise UnreadableError(
            f"its one column is called {table.column_names[0]!r}, and `delimiter` is {source.delimiter!r}; expected "
            f"columns: the file's looks like {found[0]!r}"
        )
    return table


def _json(source: "Source", payload: bytes) -> pa.Table:
    text = payload.decode(source.encoding).encode()
    schema = pa.schema(list(_plain_types(source).items()))
    return pc_json.read_json(io.BytesIO(text), parse_options=pc_json.ParseOptions(explicit_schema=schema))


_READERS: Mapping[str, Callable[["Source", bytes], pa.Table]] = {
    "parquet": _parquet,
    "arrow": _arrow,
    "csv": _csv,
    "json": _json,
}


def _plain_types(source: "Source") -> dict[str, pa.DataType]:
    """Types of the columns in a file of text, where a moment is text too."""
    return {name: ARROW_TYPES.get(str(column.dtype), pa.string()) for name, column in source.schema.columns.items()}


def _with_moments(source: "Source", table: pa.Table) -> pa.Table:
    for name, column in source.schema.columns.items():
        if "datetime" not in str(column.dtype) or name not in table.column_names:
            continue
        try:
            found = moments(name, table[name].to_pandas())
        except ValueError as error:
            raise UnreadableError(f"{error}: ask the sender") from error
        table = table.set_column(table.column_names.index(name), name, pa.array(found, MOMENT))
    return table


def moments(name: str, values: pd.Series, zone: str = "") -> pd.Series:
    """Moments in microseconds UTC.

    Args:
        name: Column that is told in an error.
        values: Text in ISO 8601, or timestamps.
        zone: Time zone of those that say none; empty: they are an error. Of an hour that comes twice when the clocks
            are set back, the later one is meant: nothing is known before it was.

    Raises:
        ValueError: A value is no moment, or has no time zone.
    """
    text = values.map(_iso, na_action="ignore").astype(object)
    written = text[text.notna()]
    naive = ~written.str.contains(_ZONE) if len(written) else written.astype(bool)
    if naive.any() and not zone:
        raise ValueError(
            f"column {name}: {int(naive.sum())} moment(s) without a time zone, such as {written[naive].iloc[0]!r}; "
            "expected ISO 8601 with one, such as '2013-03-01T15:00:00Z'"
        )
    try:
        found = pd.Series(pd.NaT, values.index, dtype="datetime64[us, UTC]")
        zoned = pd.to_datetime(written[~naive], format="ISO8601", utc=True)
        found[zoned.index] = zoned.astype("datetime64[us, UTC]")
        if naive.any():
            once = np.zeros(int(naive.sum()), dtype=bool)
            local = pd.to_datetime(written[naive], format="ISO8601")
            local = local.dt.tz_localize(zone, ambiguous=once, nonexistent="shift_forward")
            found[local.index] = local.dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    except ValueError as error:
        raise ValueError(f"column {name}: not a moment in ISO 8601 ({error})") from error
    return found


def _iso(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)
