"""CloudEvents 1.0 over HTTP: structured, binary and batched, read into events whose data are rows.

The formats: https://github.com/cloudevents/spec/tree/v1.0.2/cloudevents, `bindings/http-protocol-binding.md` and
`formats/json-format.md`.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn
from urllib.parse import unquote

from ct_assets.lake.frames import EXACT
from ct_assets.serving.schemas import InstanceError, parse_moment
from ct_assets.serving.strict_json import unique

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"


class EventError(ValueError):
    """An event that is none, or that cannot be taken.

    Attributes:
        status: HTTP status that says so.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class CloudEvent:
    """One event.

    Attributes:
        id: Names it, together with `source`.
        source: Where it comes from.
        type: What kind it is.
        time: When it happened, UTC; None when it does not say.
        rows: Its data.
    """

    id: str
    source: str
    type: str
    time: datetime | None
    rows: list[dict[str, Any]]


def parse_events(headers: Mapping[str, str], body: bytes) -> list[CloudEvent]:
    """Read the events of one request.

    Args:
        headers: By lower-case name.
        body: As it came.

    Raises:
        EventError: It is no CloudEvent 1.0, or its data are neither a JSON object nor a list of them; names the event.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == BATCH:
        events = _json(body, "the body")
        if not isinstance(events, list):
            raise EventError(f"the body is no list; expected the events of {BATCH}")
        return [_event(event, f"event {number}") for number, event in enumerate(events)]
    if kind == STRUCTURED:
        return [_event(_json(body, "the body"), "the event")]
    if "ce-specversion" not in headers:
        raise EventError(
            f"content type {kind or 'of nothing'} without the header ce-specversion; expected {STRUCTURED}, {BATCH}, "
            "or headers ce-id, ce-source, ce-type and ce-specversion: 1.0 with data of type application/json",
            415,
        )
    attributes = {n.removeprefix("ce-"): unquote(v) for n, v in headers.items() if n.startswith("ce-")}
    _require_json(kind, "the event")
    return [_event({**attributes, "data": _json(body, "the event's data")}, "the event")]


def _event(event: Any, where: str) -> CloudEvent:
    if not isinstance(event, dict):
        raise EventError(f"{where} is no JSON object; expected a CloudEvent")
    if event.get("specversion") != "1.0":
        raise EventError(f"{where}: specversion is {event.get('specversion')!r:.40}; expected '1.0'")
    for name in ("id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise EventError(f"{where}: {name} is {event.get(name)!r:.40}; expected text")
    try:
        time = None if event.get("time") is None else parse_moment(event["time"], f"{where}: time")
    except InstanceError as error:
        raise EventError(str(error)) from error
    data = _data(event, where)
    rows = data if isinstance(data, list) else [data]
    if not all(isinstance(row, dict) for row in rows):
        raise EventError(f"{where}: its data are no row; expected a JSON object, or a list of them")
    return CloudEvent(event["id"], event["source"], event["type"], time, rows)


def _data(event: dict[str, Any], where: str) -> Any:
    if event.get("datacontenttype") is not None:
        _require_json(event["datacontenttype"], where)
    if "data_base64" not in event:
        return event.get("data")
    if "data" in event:
        raise EventError(f"{where} has both data and data_base64; expected one of them")
    try:
        return _json(base64.b64decode(event["data_base64"], validate=True), f"{where}: data_base64")
    except (binascii.Error, TypeError, ValueError) as error:
        raise EventError(f"{where}: data_base64 is not JSON in base64 ({error})") from error


def _require_json(kind: Any, where: str) -> None:
    bare = str(kind).partition(";")[0].strip().lower()
    if bare != "application/json" and not bare.endswith("+json"):
        raise EventError(f"{where}: its data are {bare or 'of no type'}; expected application/json", 415)


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=_no_number, parse_float=_kept)
    except (ValueError, RecursionError) as error:
        raise EventError(f"{where} is not JSON ({error})") from error


def _kept(digits: str) -> float:
    """A number; beyond the whole ones that a float holds, only one that says the digits that were sent."""
    number = float(digits)
    if not math.isfinite(number) or (abs(number) >= EXACT and Decimal(repr(number)) != Decimal(digits)):
        _no_number(digits)
    return number


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name:.40} is no number that can be kept")
