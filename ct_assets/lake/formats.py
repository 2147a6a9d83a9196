"""What landing files may be: Parquet, Arrow, CSV and JSON lines, each read into the types of its source's contract."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from ct_assets.lake.columns import Bad, Content, beyond_years, fit, fit_arrow
from ct_assets.lake.texts import Written, fit_text, fit_timestamps, fit_values, parse_timestamps

if TYPE_CHECKING:
    from ct_assets.lake.contract import Source

DELIMITERS = (",", ";", "\t", "|")
"""What usually stands between the values of a CSV file."""
_END = "<end of the file>"
"""A last row of a CSV file that is added to it: inside quotes that nobody closed it is no row."""
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
_LARGEST_BLOCK = 2**31 - 2
_SPACE = re.compile(r"[ \t\r\n]*")
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)
"""What opens and closes objects and lists; brackets within text do not."""


class UnreadableError(ValueError):
    """A file that is not what its source sends."""


def read(source: "Source", payload: bytes) -> Content:
    """Read a landing file.

    Args:
        source: Says the format and the types of the columns.
        payload: The file.

    Returns:
        The declared columns in their types, and the values that these do not have.

    Raises:
        UnreadableError: The file is not whole, or of another format, or its columns cannot be told apart.
    """
    try:
        return _READERS[source.format](source, payload)
    except UnreadableError:
        raise
    except (pa.ArrowException, OSError, UnicodeError, csv.Error) as error:
        raise UnreadableError(f"{_WHAT[source.format]} ({error}){_ADVICE[source.format]}") from error
    except MemoryError:
        raise
    except Exception as error:
        # Nobody foresaw this one; the files that landed beside it do not have to wait for it.
        raise UnreadableError(
            f"something in it cannot be read ({type(error).__name__}: {error}): ask the sender for a value that can"
        ) from error


_WHAT = {
    "parquet": "not a whole Parquet file",
    "arrow": "not a whole Arrow file",
    "csv": "not a CSV file as it was declared",
    "json": "not a file of JSON lines as it was declared",
}
_ADVICE = {
    "parquet": "; it was cut off or is something else: ask the sender to resend it",
    "arrow": "; it was cut off or is something else: ask the sender to resend it",
    "csv": ": ask the sender, or change the source's `delimiter` or `encoding`",
    "json": ": ask the sender, or change the source's `encoding`",
}


def _parquet(source: "Source", payload: bytes) -> Content:
    # Spark's old timestamps reach farther than nanoseconds.
    file = pq.ParquetFile(pa.BufferReader(payload), coerce_int96_timestamp_unit="us")
    found = file.schema_arrow.names
    _refuse_twins(source, found)
    wanted = [name for name in source.schema.columns if name in found]
    return _typed(source, found, file.read(columns=wanted, use_threads=False))


def _arrow(source: "Source", payload: bytes) -> Content:
    whole = payload.startswith(b"ARROW1")
    if not whole and not payload.endswith(_STREAM_END):
        raise OSError(f"its {len(payload)} bytes do not end as a stream does")
    with (pa.ipc.open_file if whole else pa.ipc.open_stream)(pa.BufferReader(payload)) as reader:
        table = reader.read_all()
    _refuse_twins(source, table.column_names)
    wanted = [name for name in source.schema.columns if name in table.column_names]
    return _typed(source, table.column_names, table.select(wanted))


def _typed(source: "Source", found: Sequence[str], table: pa.Table) -> Content:
    table.validate(full=True)
    return fit(source.schema, found, lambda name: table[name].combine_chunks(), fit_arrow, source.infinite)


def _csv(source: "Source", payload: bytes) -> Content:
    # Columns that nobody asked for may hold other bytes too. In declared ones no reader takes these for text.
    text = payload
    if source.encoding != "utf-8":
        text = payload.decode(source.encoding, "surrogateescape").encode(errors="surrogatepass")
    header = io.TextIOWrapper(io.BytesIO(text), "utf-8-sig", errors="backslashreplace", newline="")
    reader = csv.reader(header, delimiter=source.delimiter)
    found = next((row for row in reader if row), [])
    if not found:
        raise UnreadableError("an empty file; expected at least a line with the names of the columns")
    other = [mark for mark in DELIMITERS if mark != source.delimiter and mark in found[0]]
    if len(found) == 1 < len(source.schema.columns) and other:
        raise UnreadableError(
            f"its one column is called {found[0]!r}, and `delimiter` is {source.delimiter!r}; expected columns: the "
            f"file's looks like {other[0]!r}"
        )
    _refuse_twins(source, found)
    wanted = [name for name in source.schema.columns if name in found] or found[:1]
    text = b"%b\n%b\n" % (text, source.delimiter.join([_END] * len(found)).encode())
    table = pc_csv.read_csv(
        io.BytesIO(text),
        # A record may be as long as the file.
        read_options=pc_csv.ReadOptions(use_threads=False, block_size=min(len(text), _LARGEST_BLOCK)),
        parse_options=pc_csv.ParseOptions(delimiter=source.delimiter, newlines_in_values=True),
        convert_options=pc_csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=wanted,
            null_values=list(source.missing),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    table, last = table.slice(0, table.num_rows - 1), table.slice(table.num_rows - 1).to_pylist()
    if last != [dict.fromkeys(wanted, _END)]:
        raise UnreadableError("a quotation mark is not closed: the file was cut off, or has one too many: ask for it")
    return fit(
        source.schema, found, lambda name: table[name].combine_chunks(), fit_text(source.missing), source.infinite
    )


def _json(source: "Source", payload: bytes) -> Content:
    rows = [row for _, _, row in json_objects(source, payload)]
    seen = dict.fromkeys(name for row in rows for name in row)
    # What no line has is missing in all of them.
    found = [*seen, *(name for name in source.schema.columns if name not in seen)]
    _refuse_twins(source, found)
    return fit(source.schema, found, lambda name: [row.get(name) for row in rows], fit_values, source.infinite)


def json_objects(source: "Source", payload: bytes) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """The objects of a file, each with its place and its text.

    Raises:
        UnreadableError: There is something else between them, or one has a declared field twice.
    """
    text = payload.decode(source.encoding).removeprefix("\ufeff")
    place = _after_space(text, 0)
    while place < len(text):
        try:
            row, end = _decoded(text, place)
        except json.JSONDecodeError as error:
            raise UnreadableError(_json_error(text, error)) from error
        if not isinstance(row, dict):
            raise UnreadableError(
                f"line {_line(text, place)} holds {text[place : place + 40]!r}; expected a JSON object on each line"
            )
        if isinstance(row, _Twice) and (twice := sorted(row.names & set(source.schema.columns))):
            raise UnreadableError(
                f"line {_line(text, place)} has the field(s) {', '.join(twice)} twice: ask the sender to name each once"
            )
        yield place, text[place:end], row
        place = _after_space(text, end)


def _decoded(text: str, place: int) -> tuple[Any, int]:
    """The value at a place, and where it ends; of one that is nested too deeply for Python's reader only the top."""
    try:
        return _DECODER.raw_decode(text, place)
    except RecursionError:
        top, end = _top(text, place)
    try:
        return _DECODER.decode(top), end
    except json.JSONDecodeError as error:
        raise json.JSONDecodeError(error.msg, text, place) from error


def _top(text: str, place: int) -> tuple[str, int]:
    """An object in which all that is nested is empty, and where it ends; what no column takes may hold anything."""
    parts: list[str] = []
    depth = 0
    for mark in _NESTING.finditer(text, place):
        if mark[0] in ("{", "["):
            depth += 1
            if depth == 2:
                parts.append(text[place : mark.end()])
        elif mark[0] in ("}", "]"):
            if depth == 2:
                place = mark.start()
            depth -= 1
            if depth == 0:
                return "".join([*parts, text[place : mark.end()]]), mark.end()
    raise json.JSONDecodeError("Unterminated object", text, len(text))


def _json_error(text: str, error: json.JSONDecodeError) -> str:
    where = f"line {error.lineno}, character {error.colno}"
    if _after_space(text, error.pos) == len(text) or error.msg.startswith("Unterminated string"):
        return f"the file ends within an object, at {where}: it was cut off; ask the sender to resend it"
    name = "" if text[error.pos].isascii() else f" ({unicodedata.name(text[error.pos], 'a character without a name')})"
    return f"{where} is no JSON ({error.msg}): {text[error.pos : error.pos + 40]!r}{name}; ask the sender to fix it"


class _Twice(dict[str, Any]):
    """An object that has a field twice."""

    names: set[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        row = _Twice(row)
        row.names = {name for name in row if names.count(name) > 1}
    return row


def _whole(digits: str) -> int | Written:
    # What surely fits into 64 bits.
    return int(digits) if len(digits) <= 18 else Written(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole, parse_float=Written)


def _after_space(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    return space.end() if space else place


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


_READERS: Mapping[str, Callable[["Source", bytes], Content]] = {
    "parquet": _parquet,
    "arrow": _arrow,
    "csv": _csv,
    "json": _json,
}


def _refuse_twins(source: "Source", found: Sequence[str]) -> None:
    """Two names that a declared column could mean; SQL does not tell upper from lower case."""
    declared = {name.casefold(): name for name in source.schema.columns}
    for name in found:
        column = declared.get(name.casefold())
        if column is not None and found.count(name) > 1:
            raise UnreadableError(f"column(s) {name} are there twice: ask the sender to name each once")
        if column is not None and name != column and column in found:
            raise UnreadableError(
                f"columns {column} and {name} differ by case only, and SQL takes them for one: ask the sender to "
                "rename the second"
            )


def moments(name: str, values: Iterable[Any], zone: str = "") -> pa.Array:
    """Timestamps in microseconds UTC, of a database's values.

    Args:
        name: Column that an error names.
        values: Text in ISO 8601, dates or timestamps; None where there is none.
        zone: Time zone of those that say none; empty: they are an error.

    Raises:
        ValueError: A value is no timestamp, or has no time zone.
    """
    text = iso_texts(values)
    fitted = fit_timestamps(text, zone)
    if not fitted.bad.any():
        return fitted.array
    found = f"{int(fitted.bad.sum())} value(s), such as {text.filter(pa.array(fitted.bad))[0].as_py()!r},"
    if fitted.kind:
        raise ValueError(f"column {name}: {found} without a time zone; expected one, such as '2013-03-01T15:00:00Z'")
    raise ValueError(f"column {name}: {found} are no timestamp in ISO 8601, such as '2013-03-01T15:00:00Z'")


def strays(values: Iterable[Any], zone: str = "") -> Bad:
    """Which values of a database's column are no timestamps, or beyond the years that there are, while others are.

    Where none is a timestamp, it is the column that is another one: `moments` says so.
    """
    text = iso_texts(values)
    parsed = parse_timestamps(text, zone or "UTC")
    bad = beyond_years(parsed.array)
    return bad if parsed.array.null_count == len(text) else bad | parsed.bad


def iso_texts(values: Iterable[Any]) -> pa.Array:
    """A database's values as text in ISO 8601, where they are moments."""
    return pa.array([None if value is None else _iso(value) for value in values], pa.string())


def _iso(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value).strip()
