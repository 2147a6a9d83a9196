"""`POST /v1/events`: CloudEvents from a broker's push subscription become rows of sources."""

import hashlib
import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from ct_assets.core.strict import unknown
from ct_assets.lake.contract import Source, contract_breaches
from ct_assets.lake.dataset import WHOLE
from ct_assets.lake.formats import UnreadableError, read
from ct_assets.lake.inbox import ConflictError, Inbox, InboxFullError, Message, Row, Taken
from ct_assets.serving.cloudevents import CloudEvent, EventError, parse_events
from ct_assets.serving.metrics import Metrics

MAX_BYTES, MAX_ROWS = 8 * 2**20, 10_000
RETRY_SECONDS = 30
_log = logging.getLogger(__name__)


class EventsTaken(BaseModel):
    """What is on disk now."""

    rows: int = Field(description="Rows that were new.")
    repeated: int = Field(description="Events that had been delivered before; nothing was changed by them.")


class Events:
    """Takes events in and lands them from time to time, in a thread of its own.

    Args:
        inbox: Where rows wait.
        every: Seconds between two looks at what is due.
    """

    def __init__(self, inbox: Inbox, every: float = 1.0) -> None:
        self.inbox = inbox
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin to land."""
        self._thread.start()

    def stop(self) -> None:
        """Land everything that waits, and end."""
        self._stop.set()
        self._thread.join()
        self._land(everything=True)
        self.inbox.close()

    def take(self, events: Sequence[CloudEvent]) -> Taken:
        """Keep the rows of all events, or none.

        Raises:
            EventError: An event has no source here, or a row breaks its source's contract.
            ConflictError: A row contradicts one that arrived before.
            InboxFullError: No room; to be tried again later.
        """
        now = datetime.now(UTC)
        first = {(event.source, event.id): event for event in reversed(events)}
        once = list(reversed(first.values()))
        if sum(len(event.rows) for event in once) > MAX_ROWS:
            raise EventError(f"more than {MAX_ROWS:,} rows in one request; expected several requests", 413)
        by_source: dict[str, list[CloudEvent]] = {}
        for event in once:
            by_source.setdefault(self._source(event).name, []).append(event)
        taken = self.inbox.take(
            [
                message
                for name, ours in by_source.items()
                for message in messages_of(self.inbox.sources[name], ours, now)
            ]
        )
        return replace(taken, repeated=taken.repeated + len(events) - len(once))

    def _source(self, event: CloudEvent) -> Source:
        by_type = {source.event_type: source for source in self.inbox.sources.values()}
        if event.type not in by_type:
            raise EventError(f"event {event.id!r}: {unknown('event type', event.type, by_type)}", 422)
        return by_type[event.type]

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._land()

    def _land(self, everything: bool = False) -> None:
        try:
            self.inbox.land(everything=everything)
        except Exception:
            # What waits is on disk and the next look tries again; the server has more to do than this.
            _log.exception("events did not land; the next look tries again")


def build_events(home: Path, sources: Sequence[Source]) -> Events | None:
    """What takes the events of those sources that have an event type; None when none has."""
    taking = [source for source in sources if source.event_type]
    return Events(Inbox(home, taking)) if taking else None


def add_event_routes(app: FastAPI, events: Events, metrics: Metrics) -> None:
    """Add `POST /v1/events`."""

    @app.post("/v1/events", status_code=202)
    async def take(request: Request) -> EventsTaken:
        """Take CloudEvents 1.0 (structured, binary or batched), whose data are rows; answered once they are on disk."""
        try:
            body = await _body(request)
            taken = await run_in_threadpool(lambda: events.take(parse_events(request.headers, body)))
        except EventError as error:
            raise HTTPException(error.status, str(error)) from error
        except ConflictError as error:
            raise HTTPException(409, str(error)) from error
        except InboxFullError as error:
            again = {"Retry-After": str(RETRY_SECONDS)}
            raise HTTPException(503, f"{error}; send it again later", again) from error
        for source, rows in taken.rows.items():
            metrics.event_rows.labels(source).inc(rows)
        metrics.repeated_events.inc(taken.repeated)
        return EventsTaken(rows=sum(taken.rows.values()), repeated=taken.repeated)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise EventError(f"the body is longer than {MAX_BYTES:,} bytes; expected several requests", 413)
    return bytes(body)


def messages_of(source: Source, events: Sequence[CloudEvent], now: datetime) -> list[Message]:
    """The rows of events, each with the moment it became known; what the contract does not name is left out.

    They are held against the contract here, since a file that breaks it is rejected as a whole: one bad event would
    cost all the rows that land beside it.

    Args:
        source: Whose events they are.
        events: As they were read.
        now: When they arrived, UTC: what becomes `known_at` where neither row nor event says.

    Raises:
        EventError: A row breaks the contract, or is known in the future.
    """
    # One that differs by case only stays, to be told.
    names = {name.casefold() for name in source.schema.columns}
    given = [[{n: v for n, v in row.items() if n.casefold() in names} for row in event.rows] for event in events]
    known = [(event.time or now).isoformat() for event in events]
    texts = [
        [json.dumps(row if row.get("known_at") is not None else {**row, "known_at": at}) for row in rows]
        for rows, at in zip(given, known, strict=True)
    ]
    stamped = [row.get("known_at") is None for rows in given for row in rows]
    lines = iter(_lines(source, [text for rows in texts for text in rows], stamped, now))
    return [
        Message(_digest([source.name, event.source, event.id]), source.name, [next(lines) for _ in rows])
        for event, rows in zip(events, texts, strict=True)
    ]


def _lines(source: Source, texts: Sequence[str], stamped: Sequence[bool], now: datetime) -> list[Row]:
    """Rows as they are kept; told apart by their values and not by how these were written.

    Args:
        source: Whose rows they are.
        texts: One JSON object each.
        stamped: Whether a row's `known_at` was put in here, and says nothing about the row.
        now: When they arrived, UTC.
    """
    if not texts:
        return []
    try:
        content = read(source, "\n".join(texts).encode(source.encoding))
        once = content.table.group_by(content.table.column_names).aggregate([])
        breaches = contract_breaches(replace(source, min_rows=0), replace(content, table=once))
    except UnreadableError as error:
        breaches = [str(error)]
    if breaches:
        raise EventError(f"rows of {source.name} break its contract: {'; '.join(breaches)}", 422)
    rows = content.table.to_pylist()
    if ahead := [row["known_at"] for row in rows if row["known_at"] > now + timedelta(days=1)]:
        raise EventError(f"rows of {source.name}: known_at is {ahead[0]}; expected no future", 422)
    days = [source.domain.partition_of(pd.Timestamp(row["known_at"])) if source.daily else WHOLE for row in rows]
    if outside := [day for day in days if source.daily and not source.domain.has(day)]:
        raise EventError(
            f"rows of {source.name}: known_at is of {outside[0]}, when nothing arrives in domain "
            f"{source.domain.name!r}; expected {source.domain.first_day} to {source.domain.last_day or 'today'}",
            422,
        )
    lines = []
    for text, at_arrival, row, day in zip(texts, stamped, rows, days, strict=True):
        held = {name: str(value) for name, value in row.items()}
        key = [held[name] for name in source.key]
        # A row of a reference table comes once in each of its versions.
        identity = key if source.daily else [*key, held["known_at"]]
        said = {name: value for name, value in held.items() if not (at_arrival and name == "known_at")}
        lines.append(Row(day, _digest(identity), _digest(key), _digest(said), text))
    return lines


def _digest(values: Any) -> bytes:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()[:16]
