"""Bodies and headers are limited in size and time before anything is parsed."""

import gzip
import re
import socket
import threading
import time

import pytest
from test_app import ask
from world import instance, spec_named

LIMIT = 200_000


@pytest.fixture(scope="module")
def spec(world):
    spec = spec_named("limited")
    world.promote(spec, 5)
    return spec


@pytest.fixture(scope="module")
def limited(world, spec):
    with world.server(spec, max_body_bytes=LIMIT) as client:
        yield client, spec


@pytest.fixture(scope="module")
def impatient(world, spec):
    """A server that waits for a second only, where a busy machine may let an honest client wait for longer."""
    with world.server(spec, request_seconds=1.0) as client:
        yield client


def body_of(size):
    """A body in parts, without a length in its headers."""
    yield b'{"instances": ['
    for _ in range(size // 30_000):
        yield b"{}," * 10_000
    yield b"{}]}"


def post(client, content):
    return client.post("/v1/models/limited:predict", content=content, headers={"content-type": "application/json"})


def test_a_body_that_is_too_long_is_refused_before_it_is_parsed(limited):
    client, _ = limited
    for content in (body_of(3_000_000), b"[" * (LIMIT + 1)):
        answer = post(client, content)
        assert answer.status_code == 413
        assert answer.json()["detail"] == "the body is longer than 200,000 bytes; expected several requests"
    assert post(client, body_of(150_000)).status_code == 422, "within the limit it is read, and has too many instances"


def test_other_requests_go_on_while_a_long_body_arrives(limited):
    client, spec = limited
    ask(client, spec, [instance()])
    sender = threading.Thread(target=post, args=(client, body_of(40_000_000)))
    sender.start()
    times = []
    while sender.is_alive() or not times:
        begun = time.perf_counter()
        assert ask(client, spec, [instance()]).status_code == 200
        times.append(time.perf_counter() - begun)
    sender.join()
    # A busy machine is slow; to read and parse 40 MB took whole seconds, for which nothing else was answered.
    assert sorted(times)[len(times) // 2] < 1


def exchange(client, *parts, pause=0.0):
    """What a connection answers to raw bytes until it closes, and after how many seconds it does."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
        begun, answer = time.monotonic(), b""
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        while received := connection.recv(65536):
            answer += received
        return answer, time.monotonic() - begun


@pytest.mark.parametrize(
    "sent",
    [
        (b"",),
        (b"POST /v1/models/limited:predict HTTP/1.1\r\nHost: x\r\n",),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /heal"),
        (b"POST /v1/models/limited:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",),
    ],
    ids=["nothing", "half of the headers", "half of the second request", "a body that stalls"],
)
def test_a_connection_that_stalls_is_closed(impatient, sent):
    answer, seconds = exchange(impatient, *sent, pause=0.3)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer)[-1] == b"408"
    assert seconds < 20


def test_headers_that_trickle_in_do_not_keep_a_connection(impatient):
    line, url = b"X-A: 1\r\n", impatient.base_url
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        deadline = time.monotonic() + 20
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                connection.sendall(line)
                time.sleep(0.1)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            '{"instances": [], "at": "ü"}'.encode("latin-1"),
            "no text in UTF-8 (invalid start byte at byte 25); expected",
        ),
        (
            gzip.compress(b'{"instances": []}'),
            "no text in UTF-8 (invalid start byte at byte 1); expected JSON in UTF-8",
        ),
        (b'{"instances": ' + b"[" * 100_000, "nested too deeply; expected"),
        (b'{"instances": [{"fare": ' + b"1" * 5_000 + b"}]}", "a number that is too long (Exceeds the limit"),
        (b'{"instances": [{"fare": 1, "fare": 2}]}', "the key 'fare' twice in one object; expected each key once"),
        (b'{"instances": [], "instances": []}', "the key 'instances' twice"),
    ],
    ids=["latin-1", "gzip", "deep", "digits", "twice", "instances twice"],
)
def test_a_body_that_cannot_be_read_is_told(limited, body, words):
    client, _ = limited
    answer = post(client, body)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]
