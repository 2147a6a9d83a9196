"""One file of many days, cut into the files that would have landed day by day."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.lake.columns import Content
from ct_assets.lake.formats import UnreadableError, json_objects, read
from ct_assets.lake.periods import Cadence, partitions_at

if TYPE_CHECKING:
    from ct_assets.lake.contract import Source

Chosen = npt.NDArray[np.bool_]


def days_of(content: Content, cadence: Cadence = "daily") -> npt.NDArray[np.str_]:
    """The arrival partition, in UTC, of `known_at` of each row.

    Raises:
        ValueError: There is no column `known_at`, or it is empty in some rows, or is no timestamp there.
    """
    if "known_at" not in content.found:
        raise ValueError(
            f"column known_at is missing; found {', '.join(content.found)}: it says on which day a row arrives, so add "
            "it, as the time at which the row could first be known"
        )
    if wrong := [breach for breach in content.breaches if breach.startswith("column known_at:")]:
        raise UnreadableError(wrong[0])
    known_at = content.table["known_at"]
    if known_at.null_count:
        raise ValueError(f"column known_at is empty in {known_at.null_count} row(s); expected a timestamp in each")
    return partitions_at(cadence, known_at).to_numpy().astype(str)


def split_by_day(source: "Source", payload: bytes, empty: Sequence[str] = ()) -> dict[str, bytes]:
    """Cut a file by the UTC day of `known_at`; every row stays as it was written, byte by byte in text.

    Args:
        source: Says what the file is.
        payload: The whole file.
        empty: Days that get a file without rows.

    Returns:
        Arrival day to a file of the same format, in order of days.

    Raises:
        UnreadableError: The file is not what the source sends, or a timestamp has no time zone.
        ValueError: There is no column `known_at`, or it is empty in some rows.
    """
    days = days_of(read(source, payload), source.domain.cadence)
    part = _CUT[source.format](source, payload, len(days))
    return {day: part(days == day) for day in sorted({*days.tolist(), *empty})}


def _csv(source: "Source", payload: bytes, rows: int) -> Callable[[Chosen], bytes]:
    text = payload.decode(source.encoding, "surrogateescape")
    mark = re.escape(source.delimiter)
    quoted = r'"(?:[^"]|"")*+"'
    value = rf"(?:{quoted}[^{mark}\r\n]*+|[^{mark}\r\n]*+)"
    record = re.compile(rf"{value}(?:{mark}{value})*+(?:\r\n|\r|\n|\Z)")
    # A byte order mark is none of the first name.
    start = len(text) - len(text.removeprefix("\ufeff"))
    found = [match[0] for match in record.finditer(text, start)]
    header, *records = [each for each in found if each.strip("\r\n")]
    if len(records) != rows:
        raise UnreadableError(f"{rows} rows in {len(records)} records; expected one each: the quotes do not match")
    return lambda chosen: _together([text[:start] + header, *_where(records, chosen)]).encode(
        source.encoding, "surrogateescape"
    )


def _json(source: "Source", payload: bytes, rows: int) -> Callable[[Chosen], bytes]:
    objects = [text for _, text, _ in json_objects(source, payload)]
    assert len(objects) == rows
    return lambda chosen: "".join(f"{text}\n" for text in _where(objects, chosen)).encode(source.encoding)


def _parquet(_source: "Source", payload: bytes, _rows: int) -> Callable[[Chosen], bytes]:
    table = pq.ParquetFile(pa.BufferReader(payload), coerce_int96_timestamp_unit="us").read(use_threads=False)

    def part(chosen: Chosen) -> bytes:
        sink = io.BytesIO()
        pq.write_table(table.filter(pa.array(chosen)), sink, compression="zstd")
        return sink.getvalue()

    return part


def _arrow(_source: "Source", payload: bytes, _rows: int) -> Callable[[Chosen], bytes]:
    opened = pa.ipc.open_file if payload.startswith(b"ARROW1") else pa.ipc.open_stream
    with opened(pa.BufferReader(payload)) as reader:
        table = reader.read_all()

    def part(chosen: Chosen) -> bytes:
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.filter(pa.array(chosen)))
        return sink.getvalue()

    return part


def _where(texts: Sequence[str], chosen: Chosen) -> list[str]:
    return [text for text, wanted in zip(texts, chosen, strict=True) if wanted]


def _together(records: list[str]) -> str:
    """Records of a CSV file, of which the last may have had no end."""
    for place, (record, _) in enumerate(pairwise(records)):
        if not record.endswith(("\r", "\n")):
            records[place] += "\n"
    return "".join(records)


_CUT: Mapping[str, Callable[["Source", bytes, int], Callable[[Chosen], bytes]]] = {
    "csv": _csv,
    "json": _json,
    "parquet": _parquet,
    "arrow": _arrow,
}
