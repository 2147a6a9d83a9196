"""What `docs/add-a-source.md` shows is what works."""

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandera.pandas as pa
import pytest

from ct_assets.lake.contract import Domain, Source, SqlTable
from ct_assets.lake.declaration import DeclarationError
from ct_assets.lake.inbox import KEEP, Inbox
from ct_assets.serving.cloudevents import parse_events
from ct_assets.serving.events import MAX_BYTES, MAX_ROWS, messages_of

TEXT = (Path(__file__).parents[2] / "docs" / "add-a-source.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def orders() -> Source:
    names = {"Source": Source, "Domain": Domain, "date": date, "pa": pa}
    exec(CODE[0], names)
    found = names["ORDERS"]
    assert isinstance(found, Source)
    return found


def test_the_source_loads_and_a_mistake_is_told_as_shown(orders: Source) -> None:
    shown = re.search(r"source 'orders', field key: .*?of", TEXT)
    assert shown
    with pytest.raises(DeclarationError, match=re.escape(shown[0])):
        replace(orders, key=("order_ids",))


def test_the_table_loads(orders: Source) -> None:
    table = eval(CODE[1].strip().partition("=")[2], {"SqlTable": SqlTable})
    assert replace(orders, table=table).table == table


def test_the_event_is_a_row(orders: Source, tmp_path: Path) -> None:
    shown = re.search(r"-d '(.*?)'\n", TEXT, re.DOTALL)
    assert shown
    source = replace(orders, format="json", event_type=json.loads(shown[1])["type"])
    events = parse_events({"content-type": "application/cloudevents+json"}, shown[1].encode())
    (message,) = messages_of(source, events, events[0].time)
    assert [line.partition for line in message.lines] == ["2024-03-01"]
    inbox = Inbox(tmp_path, [source])
    assert (f"{KEEP.days} days" in TEXT, f"{inbox.most_rows:,} of a day" in TEXT) == (True, True)
    assert (MAX_BYTES, MAX_ROWS, inbox.capacity) == (8 * 2**20, 10_000, 1_000_000)
    inbox.close()
