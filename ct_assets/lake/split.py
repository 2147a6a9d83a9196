"""One file of many days, cut into the files that would have landed day by day."""

import csv
import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ct_assets.lake.dataset import to_parquet
from ct_assets.lake.formats import UnreadableError, read

if TYPE_CHECKING:
    from ct_assets.lake.contract import Source

Days = npt.NDArray[np.str_]


def split_by_day(source: "Source", payload: bytes) -> dict[str, bytes]:
    """Cut a file by the UTC day of `known_at`; text stays as it was written.

    Args:
        source: Says what the file is.
        payload: The whole file.

    Returns:
        Arrival day to a file of the same format, in order of days.

    Raises:
        UnreadableError: The file is not what the source sends, or a moment has no time zone.
        ValueError: There is no column `known_at`, or it is empty in some rows.
    """
    table = read(source, payload)
    if "known_at" not in table.column_names:
        raise ValueError(
            f"column known_at is missing; found {', '.join(table.column_names)}: it says on which day a row arrives, "
            "so add it, as the moment at which the row could first be known"
        )
    if table["known_at"].null_count:
        raise ValueError(
            f"column known_at is empty in {table['known_at'].null_count} row(s); expected a moment in each"
        )
    days = table["known_at"].to_pandas().dt.tz_convert("UTC").dt.strftime("%Y-%m-%d").to_numpy(dtype=str)
    return {str(day): _CUT[source.format](source, payload, table, days == day) for day in np.unique(days)}


def _text_rows(source: "Source", payload: bytes, _table: pa.Table, chosen: npt.NDArray[np.bool_]) -> bytes:
    csv.field_size_limit(max(csv.field_size_limit(), len(payload)))
    text = io.StringIO(payload.decode(source.encoding), newline="")
    header, *rows = (row for row in csv.reader(text, delimiter=source.delimiter) if row)
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=source.delimiter, lineterminator="\n")
    writer.writerows([header, *(row for row, wanted in zip(rows, chosen, strict=True) if wanted)])
    return sink.getvalue().encode(source.encoding)


def _lines(source: "Source", payload: bytes, _table: pa.Table, chosen: npt.NDArray[np.bool_]) -> bytes:
    # Not `splitlines`, which also cuts at characters that JSON allows within a text, such as U+2028.
    lines = [line for line in payload.decode(source.encoding).split("\n") if line.strip()]
    if len(lines) != len(chosen):
        raise UnreadableError(f"{len(chosen)} JSON objects on {len(lines)} lines; expected each on a line of its own")
    kept = [line.rstrip("\r") + "\n" for line, wanted in zip(lines, chosen, strict=True) if wanted]
    return "".join(kept).encode(source.encoding)


def _parquet(_source: "Source", _payload: bytes, table: pa.Table, chosen: npt.NDArray[np.bool_]) -> bytes:
    return to_parquet(table.filter(pa.array(chosen)))


def _arrow(_source: "Source", _payload: bytes, table: pa.Table, chosen: npt.NDArray[np.bool_]) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.filter(pa.array(chosen)))
    return sink.getvalue()


_CUT: Mapping[str, Callable[["Source", bytes, pa.Table, npt.NDArray[np.bool_]], bytes]] = {
    "csv": _text_rows,
    "json": _lines,
    "parquet": _parquet,
    "arrow": _arrow,
}
