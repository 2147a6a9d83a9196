"""CloudEvents over HTTP: what is answered with 202 lands exactly once."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandera.pandas as pn
import pytest
from events_server import CUSTOMERS, ORDERS, SOURCES, event, events_server

from ct_assets.lake import inbox as module
from ct_assets.lake.contract import Source
from ct_assets.lake.inbox import KEEP, ConflictError, Inbox, InboxFullError, Message
from ct_assets.lake.ingest import ingest
from ct_assets.lake.lake import Lake
from ct_assets.lake.landing import Landing
from ct_assets.serving import events as events_module
from ct_assets.serving.cloudevents import CloudEvent, EventError, parse_events
from ct_assets.serving.events import messages_of

DAY = "2013-01-01"
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
NOW = datetime(2013, 1, 1, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    home = tmp_path_factory.mktemp("home")
    with events_server(home) as client:
        yield client, home


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    found = Inbox(tmp_path, SOURCES, most_rows=3)
    yield found
    found.close()


def send(client: httpx.Client, body: Any, kind: str = STRUCTURED, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/v1/events", content=content, headers={"content-type": kind, **headers})


def messages(*events: dict[str, Any], source: Any = ORDERS) -> list[Message]:
    parsed = parse_events({"content-type": BATCH}, json.dumps(events).encode())
    return messages_of(source, parsed, NOW)


def landed(home: Path, source: Any = ORDERS) -> dict[str, list[dict[str, Any]]]:
    """The rows in landing, by file."""
    landing = Landing(home, source)
    files = {}
    for path in landing.files():
        day, _, name = path.rpartition("/")
        text = landing.read(day or "all", name).payload.decode(source.encoding)
        files[path] = [json.loads(line) for line in text.splitlines()]
    return files


def ids(home: Path, source: Any = ORDERS) -> list[str]:
    return sorted(row["id"] for rows in landed(home, source).values() for row in rows)


# -- The three ways to send an event


def test_every_mode_of_http_brings_the_same_row(tmp_path: Path) -> None:
    with events_server(tmp_path) as client:
        data = json.dumps({"id": "o2", "price": 1.5}).encode()
        binary = {
            "ce-specversion": "1.0",
            "ce-id": "e2",
            "ce-source": "/shop",
            "ce-type": "shop%2Eorder.placed",
            "ce-time": "2013-01-01T05:00:00Z",
            "ce-extension": "ignored",
        }
        encoded = base64.b64encode(json.dumps({"id": "o3", "price": 1.5}).encode()).decode()
        in_base64 = {k: v for k, v in event(3).items() if k != "data"} | {"data_base64": encoded}
        answers = [
            send(client, event(1), f"{STRUCTURED}; charset=utf-8"),
            send(client, data, "application/json", **binary),
            send(client, in_base64),
            send(client, [event(4), event(5, data=[{"id": "o5", "price": 1.5}, {"id": "o6", "price": 1.5}])], BATCH),
            send(client, [], BATCH),
        ]
        assert [(a.status_code, a.json()) for a in answers] == [
            (202, {"rows": rows, "repeated": 0}) for rows in (1, 1, 1, 3, 0)
        ]
        assert 'ct_event_rows_total{source="orders"} 6.0' in client.get("/metrics").text
    # A server that ends lands what waits.
    (rows,) = landed(tmp_path).values()
    expected = {"price": 1.5, "known_at": "2013-01-01T05:00:00+00:00"}
    assert rows == [{"id": f"o{n}", **expected} for n in range(1, 7)]
    assert [batch.status for batch in ingest(Lake(tmp_path), ORDERS, DAY)] == ["accepted"]


def test_known_at_is_the_rows_then_the_events_then_the_arrival() -> None:
    own = {"id": "o1", "price": 1, "known_at": "2012-12-31T23:00:00-02:00"}
    (a, b, c) = messages(event(1, data=own), event(2), event(3, time=None))
    assert [json.loads(m.lines[0].text)["known_at"] for m in (a, b, c)] == [
        "2012-12-31T23:00:00-02:00",
        "2013-01-01T05:00:00+00:00",
        NOW.isoformat(),
    ]
    assert [m.lines[0].partition for m in (a, b, c)] == [DAY, DAY, DAY]


# -- What is delivered again


def test_an_event_that_is_delivered_again_is_one_row(tmp_path: Path) -> None:
    for _ in range(2):  # also after the server has started again
        with events_server(tmp_path) as client:
            for _ in range(2):
                assert send(client, [event(1), event(2), event(1)], BATCH).status_code == 202
            assert send(client, event(1)).json() == {"rows": 0, "repeated": 1}
    assert ids(tmp_path) == ["o1", "o2"]


def test_the_same_row_in_another_event_is_one_row_and_another_row_of_its_key_is_refused(inbox: Inbox) -> None:
    assert inbox.take(messages(event(1))).rows == {"orders": 1}
    same = {"price": 1.50, "note": None, "id": "o1", "known_at": "2013-01-01T00:00:00-05:00"}
    first = messages(event(8, data={**same, "id": "o8"}))
    assert inbox.take(first).rows == {"orders": 1}
    again = messages(event(9, data={**same, "id": "o8", "known_at": "2013-01-01T05:00:00Z"}))
    assert inbox.take(again).rows == {"orders": 0}
    with pytest.raises(ConflictError, match="of orders differs from one with its key"):
        inbox.take(messages(event(7), event(10, data={"id": "o1", "price": 2})))
    inbox.land(everything=True)
    assert ids(inbox._home) == ["o1", "o8"]


def test_what_is_remembered_is_bounded(inbox: Inbox) -> None:
    inbox.take(messages(event(1)), now=0)
    inbox.land(now=100)
    late = KEEP.total_seconds()
    inbox.land(now=late)
    assert inbox.take(messages(event(1)), now=late).repeated == 1
    inbox.land(now=late + 1)
    assert [inbox._select(f"SELECT count(*) FROM {table}") for table in ("message", "line")] == [[(0,)], [(0,)]]


def test_an_event_that_comes_after_it_was_forgotten_is_found_by_the_contract(inbox: Inbox) -> None:
    for now in (0.0, 2 * KEEP.total_seconds()):
        inbox.take(messages(event(1), event(2) if now else event(3)), now=now)
        inbox.land(now=now + 100)
        inbox.land(now=now + KEEP.total_seconds() + 1)
    lake = Lake(inbox._home)
    assert [batch.status for batch in ingest(lake, ORDERS, DAY)] == ["accepted", "quarantined"]


# -- When files land


def test_rows_land_when_they_are_many_or_have_waited_long_enough(inbox: Inbox) -> None:
    inbox.take(messages(event(1), event(2)), now=0)
    assert inbox.land(now=59) == 0
    inbox.take(messages(event(3)), now=59)
    assert inbox.land(now=59) == 1
    inbox.take(messages(event(4)), now=60)
    assert [inbox.land(now=119), inbox.land(now=120), inbox.land(now=999)] == [0, 1, 0]
    assert [[row["id"] for row in rows] for rows in landed(inbox._home).values()] == [["o1", "o2", "o3"], ["o4"]]


def test_each_day_lands_in_its_own_folder(inbox: Inbox) -> None:
    inbox.take(messages(event(1), event(2, time="2013-01-02T00:00:00Z")))
    assert inbox.land(everything=True) == 2
    assert [path.split("/")[0] for path in landed(inbox._home)] == [DAY, "2013-01-02"]


def test_versions_of_a_row_of_a_reference_table_land_in_files_of_their_own(inbox: Inbox) -> None:
    for number, hour in enumerate((1, 2, 3)):
        moment = f"2013-01-01T0{hour}:00:00Z"
        inbox.take(messages(event(number, type="shop.customer", time=moment, data={"id": "c1"}), source=CUSTOMERS))
    assert inbox.land(everything=True) == 3
    assert [batch.status for batch in ingest(Lake(inbox._home), CUSTOMERS, "all")] == ["accepted"] * 3


@pytest.mark.parametrize("step", ["claim", "write", "clear"])
def test_a_crash_while_landing_neither_loses_nor_doubles_rows(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def crash(*_: object) -> None:
        raise OSError("the power went")

    inbox.take(messages(event(1), event(2)), now=0)
    write = Landing.write
    with monkeypatch.context() as broken:
        if step == "claim":
            broken.setattr(Inbox, "_claim", crash)
        elif step == "write":
            broken.setattr(Landing, "write", crash)
        else:
            broken.setattr(Landing, "write", lambda *args: (write(*args), crash()))
        with pytest.raises(OSError, match="the power went"):
            inbox.land(now=100)
    other = Inbox(inbox._home, SOURCES, most_rows=3)
    other.take(messages(event(3)), now=100)
    other.land(now=200)
    other.close()
    assert ids(inbox._home) == ["o1", "o2", "o3"]


def test_a_place_that_does_not_answer_does_not_hold_up_the_others(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    broken = replace(CUSTOMERS, landing=str(tmp_path / "file"))
    inbox = Inbox(tmp_path, (broken, ORDERS))
    inbox.take([*messages(event(1)), *messages(event(2, type="shop.customer", data={"id": "c1"}), source=broken)])
    with pytest.raises(OSError, match="file"):
        inbox.land(everything=True)
    inbox.close()
    assert ids(tmp_path) == ["o1"]


# -- What is refused

REFUSED: dict[str, tuple[Any, str, int, str]] = {
    "no JSON": (b"{", STRUCTURED, 400, "the body is not JSON"),
    "a key twice": (b'{"id": "1", "id": "2"}', STRUCTURED, 400, "the key 'id' twice in one object; expected each key"),
    "not a number": (b'{"data": NaN}', STRUCTURED, 400, "NaN is no number that can be kept"),
    "no event": ([1], BATCH, 400, "event 0 is no JSON object"),
    "one event as a batch": (event(1), BATCH, 400, "the body is no list"),
    "another version": (event(1, specversion="0.3"), STRUCTURED, 400, "specversion is '0.3'; expected '1.0'"),
    "no id": (event(1, id=""), STRUCTURED, 400, "id is ''; expected text"),
    "a time without a zone": (event(1, time="2013-01-01T05:00:00"), STRUCTURED, 400, "has no time zone"),
    "data of another type": (event(1, datacontenttype="text/xml"), STRUCTURED, 415, "its data are text/xml"),
    "data that are no row": (event(1, data="x"), STRUCTURED, 400, "its data are no row"),
    "data twice": (event(1, data_base64="e30="), STRUCTURED, 400, "both data and data_base64"),
    "base64 that is none": ({**event(1, data_base64="*"), "data": 1}, STRUCTURED, 400, "both data and"),
    "no headers of an event": ({"id": "o1"}, "application/json", 415, "without the header ce-specversion"),
    "an unknown type": (event(1, type="shop.order.place"), STRUCTURED, 422, "did you mean 'shop.order.placed'"),
    "a price below zero": (event(1, data={"id": "o1", "price": -1}), STRUCTURED, 422, "column price: expected"),
    "a missing column": (event(1, data={"id": "o1"}), STRUCTURED, 422, "column price"),
    "text for a number": (event(1, data={"id": "o1", "price": "dear"}), STRUCTURED, 422, "break its contract"),
    "half a surrogate pair": (event(1, data={"id": "\ud800", "price": 1}), STRUCTURED, 422, "break its contract"),
    "a number without end": (b'{"data": 1e999}', STRUCTURED, 400, "1e999 is no number that can be kept"),
    "digits that a float loses": (b'{"data": 9007199254740993.0}', STRUCTURED, 400, "no number that can be kept"),
    "a row of a day before all": (event(1, time="1999-12-31T23:59:59Z"), STRUCTURED, 422, "expected 2000-01-01 to"),
    "a row from the future": (event(1, time="2190-01-01T00:00:00Z"), STRUCTURED, 422, "expected no future"),
    "a batch with one bad event": ([event(1), event(2, data={"id": "o2", "price": -1})], BATCH, 422, "column price"),
    "one key twice": ([event(1), event(2, data={"id": "o1", "price": 3})], BATCH, 422, "repeat the key id"),
    "too long": (b" " * (events_module.MAX_BYTES + 1), STRUCTURED, 413, "longer than"),
    "too many": (event(1, data=[{}] * (events_module.MAX_ROWS + 1)), STRUCTURED, 413, "more than 10,000 rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_event_is_refused_in_words_and_leaves_nothing(served: tuple[httpx.Client, Path], case: str) -> None:
    client, home = served
    body, kind, status, told = REFUSED[case]
    answer = send(client, body, kind)
    assert (answer.status_code, told in answer.json()["detail"]) == (status, True), answer.text
    inbox = Inbox(home, SOURCES)
    assert inbox._count() == 0
    inbox.close()


def test_a_full_inbox_asks_to_come_again(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, SOURCES, capacity=2)
    inbox.take(messages(event(1)))
    with pytest.raises(InboxFullError, match="1 rows wait to land, of at most 2"):
        inbox.take(messages(event(2), event(3)))
    inbox.land(everything=True)
    assert inbox.take(messages(event(2), event(3))).rows == {"orders": 2}
    inbox.close()


def test_a_disk_that_takes_nothing_is_answered_with_503(
    served: tuple[httpx.Client, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = served

    def full(*_: object) -> None:
        raise module.sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(module, "_insert", full)
        answer = send(client, event(1))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert "disk is full" in answer.json()["detail"]


# -- Several processes


def test_two_processes_of_which_one_is_killed_keep_every_event_once(tmp_path: Path) -> None:
    """As a broker does: every event goes to any of the servers again until one has answered with 202."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    program = str(Path(__file__).with_name("events_server.py"))
    servers = [
        subprocess.Popen([sys.executable, program, str(tmp_path), str(s.fileno())], pass_fds=[s.fileno()])
        for s in listeners
    ]
    urls = [f"http://127.0.0.1:{s.getsockname()[1]}/v1/events" for s in listeners]
    try:
        for listener in listeners:
            listener.close()
        for url in urls:
            _until_answered(url.replace("/v1/events", "/healthz"))
        with httpx.Client(timeout=30) as client, ThreadPoolExecutor(6) as pool:

            def deliver(number: int) -> None:
                if number == 60:
                    os.kill(servers[0].pid, signal.SIGKILL)
                answered = 0
                for attempt in range(20):
                    try:
                        answer = client.post(urls[(number + attempt) % 2], json=event(number), headers=_KIND)
                        assert answer.status_code == 202, answer.text
                        answered += 1
                    except httpx.TransportError:
                        continue
                    if answered == 1 + number % 2:  # half of them are delivered twice
                        return
                raise AssertionError("nobody answered")

            list(pool.map(deliver, range(120)))
    finally:
        for server in servers:
            server.send_signal(signal.SIGINT)
            server.wait()
    assert ids(tmp_path) == sorted(f"o{n}" for n in range(120))


_KIND = {"content-type": STRUCTURED}


def _until_answered(url: str, seconds: float = 600.0) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=seconds)
    while True:
        try:
            assert httpx.get(url, timeout=seconds).status_code == 200
            return
        except httpx.TransportError:
            assert datetime.now(UTC) < deadline, "the server did not start"


def test_large_ids_stay_apart_and_names_that_differ_by_case_are_refused() -> None:
    columns = {
        "id": pn.Column(int),
        "units": pn.Column(int, nullable=True),
        "known_at": pn.Column("datetime64[us, UTC]"),
    }
    source = Source("lots", pn.DataFrameSchema(columns), ("id",), "Lots", "team:test", format="json", event_type="lot")
    now = datetime(2024, 3, 1, 12, tzinfo=UTC)

    def lot(**row: object) -> CloudEvent:
        return CloudEvent(str(row["id"]), "/", "lot", now, [row])

    events = [lot(id=2**53), lot(id=2**53 + 1, units=2**53 + 1), lot(id=3, units=2**53)]
    lines = [line for message in messages_of(source, events, now) for line in message.lines]
    assert len({line.identity for line in lines}) == len({line.content for line in lines}) == 3
    with pytest.raises(EventError, match="columns units and Units differ by case only"):
        messages_of(source, [lot(id=1, Units=4)], now)
