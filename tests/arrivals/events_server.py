"""A server that takes events of orders; as a program, it is one of several processes on one home."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pandera.pandas as pa
import uvicorn

from ct_assets.lake.contract import Source
from ct_assets.serving.app import create_app

ORDERS = Source(
    name="orders",
    schema=pa.DataFrameSchema(
        {
            "id": pa.Column(object),
            "price": pa.Column(float, pa.Check.ge(0)),
            "note": pa.Column(object, nullable=True),
            "known_at": pa.Column("datetime64[us, UTC]"),
        }
    ),
    key=("id",),
    description="Orders",
    owner="team:test",
    format="json",
    event_type="shop.order.placed",
)
CUSTOMERS = Source(
    name="customers",
    schema=pa.DataFrameSchema({"id": pa.Column(object), "known_at": pa.Column("datetime64[us, UTC]")}),
    key=("id",),
    description="Customers",
    owner="team:test",
    format="json",
    event_type="shop.customer",
    daily=False,
)
SOURCES = (ORDERS, CUSTOMERS)


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "/shop",
        "type": "shop.order.placed",
        "time": "2013-01-01T05:00:00Z",
        "data": {"id": f"o{number}", "price": 1.5},
        **changes,
    }


@contextmanager
def events_server(home: Path) -> Iterator[httpx.Client]:
    """A real server on a free port of the loopback interface."""
    server = uvicorn.Server(uvicorn.Config(create_app({}, home, sources=SOURCES), log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=300) as client:
                # The socket listens already: the first request waits until the server answers.
                assert client.get("/healthz").status_code == 200
                yield client
        finally:
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    uvicorn.run(create_app({}, Path(sys.argv[1]), sources=SOURCES), fd=int(sys.argv[2]), log_level="warning")
