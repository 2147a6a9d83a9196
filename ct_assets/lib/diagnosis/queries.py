"""Checks of the SQL of events, labels and features against the contracts, before there are any rows."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import lru_cache

import duckdb
import pyarrow as pa

from ct_assets.core.strict import unknown
from ct_assets.lake.contract import Source
from ct_assets.lib.diagnosis.finding import CannotTellError, Finding
from ct_assets.lib.diagnosis.model import Examined
from ct_assets.lib.diagnosis.tables import MOMENT, SPAN, bound, in_words, schema_of
from ct_assets.lib.features import FeatureSql

SOURCES, EVENTS, LABELS, FEATURES = "sources", "events", "labels", "feature SQL"
ZONE = "a moment with a time zone (TIMESTAMPTZ); `AT TIME ZONE 'UTC'` gives one to a TIMESTAMP"


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


_LABELS = {
    "binary": ("0 or 1, a whole number or a boolean", lambda t: pa.types.is_integer(t) or pa.types.is_boolean(t)),
    "multiclass": ("the class's name, as text", pa.types.is_string),
}
_REQUEST = {
    "timestamp": ("a moment with a time zone", lambda t: t == MOMENT),
    "string": ("text", pa.types.is_string),
    "number": ("a number", _is_number),
}


def sources_exist(model: Examined) -> Iterator[Finding]:
    """The spec's sources are those of the deployment, and share the days that they arrive by."""
    for field, name in (("events.source", model.spec.events.source), ("label.source", model.spec.label.source)):
        if name not in model.sources:
            yield Finding(
                "error", SOURCES, model.at(field), unknown("source", name, model.sources), remedy="name it, or add it"
            )
    named = {model.spec.events.source, model.spec.label.source} & model.sources.keys()
    read = [*(model.sources[name] for name in sorted(named, reverse=True)), *(s.source for s in model.feature_sets)]
    domains = dict.fromkeys((source.name, source.domain) for source in read if source.daily)
    if len({domain for _, domain in domains}) > 1:
        told = ", ".join(f"{name} of {domain.name}" for name, domain in domains)
        expected = "daily sources of one domain, whose days the model lives by"
        yield Finding("error", SOURCES, model.file, f"reads {told}", expected, "give them one domain")


def events_bind(model: Examined) -> Iterator[Finding]:
    """The events' SQL fits its source and yields what the platform reads, with the right types."""
    events = model.spec.events
    found = yield from _bound(model, EVENTS, "events.sql", events.sql, [events.source])
    if found is None:
        return
    needed = {events.id_column: "events.id_column", "event_timestamp": "the moment of prediction"}
    if own := model.spec.label.matures_at:
        needed[own] = "label.matures_at"
        yield from _moment(model, EVENTS, "events.sql", found, own)
    if (weight := model.spec.weight) and weight not in model.spec.inputs:
        needed[weight] = "weight"
    needed |= dict.fromkeys(model.spec.entities, "entities") | dict.fromkeys(model.spec.request, "request")
    yield from _present(model, EVENTS, "events.sql", found, needed)
    yield from _moment(model, EVENTS, "events.sql", found, "event_timestamp")
    for name, kind in model.spec.request.items():
        expected, fits = _REQUEST[kind]
        if name in found.names and not fits(found.field(name).type):
            got = f"column {name} is {found.field(name).type}, and `request` says {kind}"
            yield Finding("error", EVENTS, model.at("events.sql"), got, expected, "convert it, or change `request`")
    for name in model.spec.entities:
        if (
            model.spec.inputs.get(name) == "numeric"
            and name in found.names
            and pa.types.is_string(found.field(name).type)
        ):
            told = f"{name} is numeric, and the events' SQL yields text"
            yield Finding("error", EVENTS, model.at(f"inputs.{name}"), told, "a number", "call it categorical")


def labels_bind(model: Examined) -> Iterator[Finding]:
    """The labels' SQL fits its source and yields the id, `label` and `known_at`, with the right types."""
    label, id_column = model.spec.label, model.spec.events.id_column
    needed = {id_column: "events.id_column", "label": "what became of the event", "known_at": "when that was known"}
    more: dict[str, pa.Schema] = {}
    if label.horizon is not None:
        # Its labels are known when the horizon has passed, and it looks the events up that are asked about.
        del needed["known_at"]
        more["events"] = _asked(model)
    found = yield from _bound(model, LABELS, "label.sql", label.sql, [label.source], more)
    if found is None:
        return
    yield from _present(model, LABELS, "label.sql", found, needed)
    yield from _moment(model, LABELS, "label.sql", found, "known_at")
    if "label" in found.names:
        expected, fits = _LABELS.get(model.spec.task, ("a number", _is_number))
        if not fits(found.field("label").type):
            got = f"column label is {found.field('label').type}, and the task is {model.spec.task}"
            yield Finding("error", LABELS, model.at("label.sql"), got, expected, "convert it in the SQL")


def _asked(model: Examined) -> pa.Schema:
    """The table `events` of a horizon's SQL."""
    events = model.spec.events
    try:
        yielded = bound({events.source: model.sources[events.source]}, f"SELECT * FROM ({events.sql})")
    except (KeyError, duckdb.Error) as error:
        raise CannotTellError("the events' SQL does not fit") from error
    return yielded.append(pa.field("horizon_ends", MOMENT))


def features_bind(model: Examined) -> Iterator[Finding]:
    """The SQL of every view fits its source and yields join key, `event_timestamp`, `created` and features."""
    if not any(model.views()):
        raise CannotTellError("no feature set could be read")
    for view, how, features in model.views():
        where = f"FeatureSql {view!r}"
        try:
            found = view_schema(features.source, how)
        except duckdb.Error as error:
            told = in_words(error, {features.source.name: features.source}, model.sources)
            yield Finding("error", FEATURES, where, told, remedy="mend the SQL")
            continue
        yield from _row_of_a_view(where, found)
        for column in how.uses:
            if column not in features.source.schema.columns:
                told = unknown("column", column, features.source.schema.columns)
                yield Finding("error", FEATURES, f"{where}: uses", told)


def view_schema(source: Source, how: FeatureSql) -> pa.Schema:
    """What the SQL of a view yields.

    Raises:
        duckdb.Error: It does not fit the source's contract.
    """
    return _yields(source.name, schema_of(source), how.sql)


@lru_cache(maxsize=256)
def _yields(name: str, schema: pa.Schema, sql: str) -> pa.Schema:
    # Several checks ask, and planning a query is what costs.
    return bound({}, sql, SPAN, {name: schema})


def _row_of_a_view(where: str, found: pa.Schema) -> Iterator[Finding]:
    order = "the join key, then event_timestamp, created and the features"
    for name in ("event_timestamp", "created"):
        if name not in found.names:
            yield Finding("error", FEATURES, where, f"no column {name}; yields {', '.join(found.names)}", order)
        elif found.field(name).type != MOMENT:
            yield Finding("error", FEATURES, where, f"column {name} is {found.field(name).type}", ZONE)
    if found.names[:1] == ["event_timestamp"]:
        yield Finding("error", FEATURES, where, "event_timestamp comes first, so that there is no join key", order)


def _bound(
    model: Examined,
    check: str,
    field: str,
    sql: str,
    read: Sequence[str],
    more: Mapping[str, pa.Schema] | None = None,
) -> Generator[Finding, None, pa.Schema | None]:
    """Yield what is wrong with a query of the spec; return what it yields, None when it does not fit."""
    visible = {name: model.sources[name] for name in read if name in model.sources}
    if not visible:
        raise CannotTellError(f"no contract of {', '.join(read)}")
    try:
        # The platform wraps the query, which a semicolon at its end would break.
        found = bound(visible, f"SELECT * FROM ({sql})", more=more)
    except duckdb.Error as error:
        yield Finding("error", check, model.at(field), in_words(error, visible, model.sources), remedy="mend the SQL")
        return None
    return found


def _present(model: Examined, check: str, field: str, found: pa.Schema, needed: Mapping[str, str]) -> Iterator[Finding]:
    for name, why in needed.items():
        if name not in found.names:
            told = f"yields no column {name} ({why})"
            near = unknown("column", name, found.names).partition("; ")[0].partition(", did you mean")[2]
            hint = f"did you mean{near}" if near else f"it yields {', '.join(found.names)}"
            yield Finding("error", check, model.at(field), told, remedy=f"{hint}; add it to the SELECT")


def _moment(model: Examined, check: str, field: str, found: pa.Schema, name: str) -> Iterator[Finding]:
    if name in found.names and found.field(name).type != MOMENT:
        told = f"column {name} is {found.field(name).type}"
        yield Finding("error", check, model.at(field), told, ZONE)
