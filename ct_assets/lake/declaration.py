"""Whether a source's declaration holds together; told when it is loaded, by source and field."""

import codecs
import re
import zoneinfo
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec

from ct_assets.core.strict import unknown
from ct_assets.lake.columns import TIMESTAMP, stored_type

if TYPE_CHECKING:
    from ct_assets.lake.contract import Source

FORMATS = ("parquet", "arrow", "csv", "json")
TEXT_FORMATS = ("csv", "json")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NAMED = "expected letters, digits and '_', with a letter first"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NUMERIC = re.compile(r"u?int\d+|float\d+", re.IGNORECASE)


class DeclarationError(ValueError):
    """A declaration that contradicts itself."""


def check_declaration(source: "Source") -> None:
    """Check one source.

    Raises:
        DeclarationError: It contradicts itself; names the source and every field that is wrong.
    """
    problems = [
        *_name(source),
        *_columns(source),
        *_key(source),
        *_stable(source),
        *_bounds(source),
        *_text(source),
        *_landing(source),
        *_table(source),
        *_events(source),
    ]
    if problems:
        raise DeclarationError("; ".join(f"source {source.name!r}, {problem}" for problem in problems))


def check_together(sources: Sequence["Source"]) -> None:
    """Check that the sources of one deployment do not get in each other's way.

    Raises:
        DeclarationError: Two have one name, take the same events, or land in one place.
    """
    problems = [
        f"{repeated} sources are called {name!r}; expected a name of its own for each"
        for name, repeated in Counter(source.name for source in sources).items()
        if repeated > 1
    ]
    names: dict[str, set[str]] = {}
    for source in sources:
        names.setdefault(source.name.casefold(), set()).add(source.name)
    problems += [
        f"sources {' and '.join(sorted(alike))} differ by case only, and SQL takes them for one table; expected names "
        "that differ otherwise: rename one"
        for alike in names.values()
        if len(alike) > 1
    ]
    problems += [
        f"event_type {kind!r} belongs to {' and '.join(s.name for s in sources if s.event_type == kind)}; "
        "expected one source for a type of event"
        for kind, repeated in Counter(s.event_type for s in sources if s.event_type).items()
        if repeated > 1
    ]
    placed = sorted((source.landing.rstrip("/") + "/", source.name) for source in sources if source.landing)
    problems += [
        f"source {inner!r}, field landing: {place} lies within the landing of {outer!r}; expected places apart"
        for (around, outer), (place, inner) in pairwise(placed)
        if place.startswith(around)
    ]
    if problems:
        raise DeclarationError("; ".join(problems))


def check_names(what: str, names: Iterable[str]) -> None:
    """Check names that become parts of paths, of Dagster's names and of SQL.

    Raises:
        DeclarationError: One does not fit all of these.
    """
    if problems := [f"{what} {name!r}: {_NAMED}" for name in names if not _NAME.fullmatch(name)]:
        raise DeclarationError("; ".join(problems))


def _name(source: "Source") -> Iterable[str]:
    if not _NAME.fullmatch(source.name):
        yield f"field name: {_NAMED}"
    if not _NAME.fullmatch(source.domain.name):
        yield f"field domain: its name is {source.domain.name!r}; {_NAMED}"
    if source.fresh_within.total_seconds() <= 0:
        yield f"field fresh_within: found {source.fresh_within}; expected a positive time"
    if source.domain.last_day and source.domain.last_day < source.domain.first_day:
        yield f"field domain: its last day {source.domain.last_day} lies before its first, {source.domain.first_day}"
    if source.min_rows < 0:
        yield f"field min_rows: found {source.min_rows}; expected 0 or more"


def _columns(source: "Source") -> Iterable[str]:
    seen: dict[str, str] = {}
    for name, column in source.schema.columns.items():
        if stored_type(column) is None:
            utc = "datetime" in str(column.dtype)
            allowed = "datetime64[us, UTC]" if utc else "object (text), int, float, bool or datetime64[us, UTC]"
            yield f"field schema: column {name} is {column.dtype}{', without UTC' if utc else ''}; expected {allowed}"
        if column.parsers or column.default is not None:
            yield f"field schema: column {name} has a parser or default; expected none: values are stored as they come"
        if (first := seen.setdefault(name.casefold(), name)) != name:
            yield f"field schema: columns {first} and {name} differ by case only; SQL takes them for one: rename one"
    if source.schema.parsers:
        yield "field schema: has a parser; expected none: rows are stored as they come"
    known = source.schema.columns.get("known_at")
    if known is None:
        yield "field schema: column known_at is missing; expected the timestamp at which each row became known, in UTC"
    elif stored_type(known) != TIMESTAMP:
        yield f"field schema: column known_at is {known.dtype}; expected datetime64[us, UTC]"
    elif known.nullable:
        yield "field schema: column known_at is nullable; every row became known at some time"
    yield from _infinite(source)


def _infinite(source: "Source") -> Iterable[str]:
    if isinstance(source.infinite, str):
        yield f"field infinite: found the text {source.infinite!r}; expected a tuple, such as ({source.infinite!r},)"
        return
    for name in source.infinite:
        if name not in source.schema.columns:
            yield f"field infinite: {unknown('column', name, source.schema.columns)}"
        elif "float" not in str(source.schema.columns[name].dtype).lower():
            yield f"field infinite: column {name} is {source.schema.columns[name].dtype}; expected a float"


def _key(source: "Source") -> Iterable[str]:
    if isinstance(source.key, str):
        yield f"field key: found the text {source.key!r}; expected a tuple of columns, such as ({source.key!r},)"
        return
    if not source.key:
        yield "field key: is empty; expected the columns that name a row"
    for name in source.key:
        if name not in source.schema.columns:
            yield f"field key: {unknown('column', name, source.schema.columns)}"
        elif source.schema.columns[name].nullable:
            yield f"field key: column {name} is nullable; expected a value in every row, to tell the rows apart"


def _stable(source: "Source") -> Iterable[str]:
    if isinstance(source.stable, str):
        yield f"field stable: found the text {source.stable!r}; expected a tuple, such as ({source.stable!r},)"
        return
    if source.stable and not source.daily:
        yield (
            "field stable: is for sources that arrive by partition, whose newest rows are compared with those before; "
            "expected none for a reference table, which is sent whole: bound its values by checks of the schema"
        )
    for name in source.stable:
        if name not in source.schema.columns:
            yield f"field stable: {unknown('column', name, source.schema.columns)}"
        elif not _NUMERIC.fullmatch(str(source.schema.columns[name].dtype)):
            yield f"field stable: column {name} is {source.schema.columns[name].dtype}; expected a number"


def _bounds(source: "Source") -> Iterable[str]:
    """Checks of one column that no value can pass together."""
    for name, column in source.schema.columns.items():
        found = [check.statistics or {} for check in column.checks]
        lows = [s["min_value"] for s in found if s.get("min_value") is not None]
        highs = [s["max_value"] for s in found if s.get("max_value") is not None]
        if lows and highs and max(lows) > min(highs):
            yield (
                f"field schema: column {name} has to be at least {max(lows)} and at most {min(highs)}; expected a range"
            )


def _text(source: "Source") -> Iterable[str]:
    if source.format not in FORMATS:
        yield f"field format: {unknown('format', source.format, FORMATS)}"
    if source.delimiter != "," and source.format != "csv":
        yield f"field delimiter: a file of {source.format} has none; leave it out, or say format='csv'"
    if isinstance(source.missing, str):
        yield f"field missing: found the text {source.missing!r}; expected a tuple, such as ({source.missing!r},)"
    if source.missing != ("",) and source.format != "csv":
        yield f"field missing: a file of {source.format} says itself what is missing; leave it out, or say format='csv'"
    if len(source.delimiter) != 1:
        yield f"field delimiter: found {source.delimiter!r}; expected one character"
    if source.encoding != "utf-8" and source.format not in TEXT_FORMATS:
        yield f"field encoding: a file of {source.format} has none; leave it out, or say format='csv' or 'json'"
    try:
        codecs.lookup(source.encoding)
    except LookupError:
        yield f"field encoding: {unknown('encoding', source.encoding, _ENCODINGS)}, or another one that Python knows"


_ENCODINGS = ("ascii", "cp1252", "latin-1", "utf-8", "utf-8-sig", "utf-16")


def _landing(source: "Source") -> Iterable[str]:
    if not source.landing:
        return
    scheme = _URL.match(source.landing)
    if not scheme and not Path(source.landing).is_absolute():
        yield f"field landing: found {source.landing!r}; expected an absolute path or a URL such as s3://bucket/prefix"
    if scheme:
        try:
            fsspec.get_filesystem_class(scheme[1])
        except ValueError:
            yield f"field landing: {unknown('scheme', scheme[1], fsspec.available_protocols())}"
        except ImportError as error:
            yield f"field landing: {scheme[1]}:// needs a package ({error}); for S3, install ct-assets[s3]"


def _table(source: "Source") -> Iterable[str]:
    table = source.table
    if table is None:
        return
    if not _VARIABLE.fullmatch(table.url):
        # Not shown: it may be the URL itself, with its password.
        yield "field table.url: is no name of an environment variable; expected one, which holds the SQLAlchemy URL"
    if bool(table.table) == bool(table.query):
        yield "field table: expected exactly one of table and query"
    if not table.cursor:
        yield "field table.cursor: is empty; expected the column that only grows, such as updated_at or id"
    if not table.known_at:
        yield "field table.known_at: is empty; expected the column that says when a row became known"
    if table.batch_rows < 1:
        yield f"field table.batch_rows: found {table.batch_rows}; expected 1 or more"
    if min(table.lag.total_seconds(), table.every.total_seconds()) < 0:
        yield "field table: lag or every is negative; expected 0 or more"
    if table.zone and table.zone not in zoneinfo.available_timezones():
        yield f"field table.zone: {_nearest_zone(table.zone)}"
    if source.format != "parquet":
        yield f"field format: found {source.format!r}; rows of a table land as 'parquet'"
    if source.min_rows > 1:
        yield f"field min_rows: found {source.min_rows}; rows of a table land as they come: expected 1"


def _events(source: "Source") -> Iterable[str]:
    if not source.event_type:
        return
    if source.table is not None:
        yield "field event_type: its rows come from a table already; expected one of the two"
    if source.format != "json":
        yield f"field format: found {source.format!r}; events land as 'json'"
    if source.min_rows > 1:
        yield f"field min_rows: found {source.min_rows}; events land as they come: expected 1"


def _nearest_zone(name: str) -> str:
    near = get_close_matches(name, zoneinfo.available_timezones(), n=1)
    return f"unknown time zone {name!r}{f', did you mean {near[0]!r}?' if near else ';'} expected one such as 'UTC'"
