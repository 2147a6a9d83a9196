"""The index beside a ledger: what it answers is what the file says, whatever happens to either of them."""

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ct_assets.core import ledger as module
from ct_assets.core.ledger import GENESIS, Ledger, LedgerError, Record

DAY = datetime(2013, 5, 1, tzinfo=UTC)
KINDS, MODELS = ["skip", "retrain", "training"], ["a", "b", "a/1"]


def a_year(path: Path, records: int = 200, seed: int = 0) -> list[Record]:
    chance, ledger = random.Random(seed), Ledger(path)
    for number in range(records):
        day = DAY + timedelta(days=chance.randrange(60), hours=chance.randrange(3))
        key = f"k{number}" if number % 2 else None
        ledger.append(chance.choice(KINDS), chance.choice(MODELS), day, {"n": number}, key=key)
    return ledger.records()


def answers(ledger: Ledger) -> list[object]:
    limits = [None, DAY + timedelta(days=20, hours=1), DAY - timedelta(days=1)]
    chosen = [["skip"], ["skip", "retrain"], None, ["unknown"]]
    pairs = [(kinds, model, limit) for kinds in chosen for model in [*MODELS, "none"] for limit in limits]
    return [
        [ledger.newest(*each) for each in pairs],
        [ledger.last_written(*each) for each in pairs],
        [ledger.records(kind, model) for kind in [*KINDS, None] for model in [*MODELS, None]],
        [list(ledger.iterate("skip", "a", newest_first=True))[:3], ledger.models(), ledger.head()],
        [ledger.find(f"k{number}") for number in range(0, 40)],
    ]


def answers_of(records: list[Record]) -> list[object]:
    """The same from a plain list."""

    def among(kinds: list[str] | None, model: str, keep: Callable[[datetime], bool]) -> list[Record]:
        return [
            r
            for r in records
            if r.model == model and (kinds is None or r.kind in kinds) and keep(datetime.fromisoformat(r.as_of))
        ]

    limits = [None, DAY + timedelta(days=20, hours=1), DAY - timedelta(days=1)]
    chosen = [["skip"], ["skip", "retrain"], None, ["unknown"]]
    pairs = [(kinds, model, limit) for kinds in chosen for model in [*MODELS, "none"] for limit in limits]
    newest = [
        max(among(k, m, lambda t, x=x: x is None or t < x), key=lambda r: (r.as_of, r.seq), default=None)
        for k, m, x in pairs
    ]
    last = [
        max(among(k, m, lambda t, x=x: x is None or t <= x), key=lambda r: r.seq, default=None) for k, m, x in pairs
    ]
    found = [
        [r for r in records if kind in (None, r.kind) and model in (None, r.model)]
        for kind in [*KINDS, None]
        for model in [*MODELS, None]
    ]
    skips = [r for r in reversed(records) if r.kind == "skip" and r.model == "a"][:3]
    head = records[-1].hash if records else GENESIS
    keys = {r.key: r for r in records if r.key}
    return [
        newest,
        last,
        found,
        [skips, list(dict.fromkeys(r.model for r in records)), head],
        [keys.get(f"k{number}") for number in range(0, 40)],
    ]


@pytest.mark.parametrize("seed", range(3))
def test_it_answers_what_a_list_of_the_records_would(tmp_path: Path, seed: int) -> None:
    records = a_year(tmp_path / "l.jsonl", seed=seed)
    assert answers(Ledger(tmp_path / "l.jsonl")) == answers_of(records)


def test_before_the_first_record_there_is_nothing_and_nothing_is_created(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "l.jsonl")
    assert answers(ledger) == answers_of([])
    assert list(tmp_path.iterdir()) == []
    ledger.append("skip", "a", DAY, {})
    assert Ledger(ledger.path).models() == ["a"]


def lose(index: Path) -> None:
    for path in index.parent.glob(index.name + "*"):
        path.unlink()


def damage(index: Path) -> None:
    lose(index)
    index.write_bytes(b"not a database" * 500)


def tear(index: Path) -> None:
    """Half of the pages are of zeros, as after a power failure."""
    whole = index.read_bytes()
    lose(index)
    index.write_bytes(whole[:4096] + b"\0" * (len(whole) - 4096))


def another_layout(index: Path) -> None:
    import sqlite3

    with sqlite3.connect(index) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def of_another_ledger(index: Path) -> None:
    a_year(index.parent / "other.jsonl", 300, seed=5)
    lose(index)
    (index.parent / "other.jsonl.index").rename(index)


@pytest.mark.parametrize("happens", [lose, damage, tear, another_layout, of_another_ledger])
def test_an_index_that_does_not_fit_is_made_again(tmp_path: Path, happens: Callable[[Path], None]) -> None:
    records = a_year(tmp_path / "l.jsonl")
    reader = Ledger(tmp_path / "l.jsonl")
    happens(tmp_path / "l.jsonl.index")
    assert answers(Ledger(tmp_path / "l.jsonl")) == answers_of(records)
    Ledger(tmp_path / "l.jsonl").append("skip", "a", DAY, {})
    assert reader.verify() == len(records) + 1


def test_an_older_index_catches_up_and_a_newer_one_is_made_again(tmp_path: Path) -> None:
    """As when the ledger or the index alone comes back from a copy."""
    records = a_year(tmp_path / "l.jsonl")
    lines = (tmp_path / "l.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "l.jsonl").write_bytes(b"".join(lines[:50]))
    assert answers(Ledger(tmp_path / "l.jsonl")) == answers_of(records[:50])
    (tmp_path / "l.jsonl").write_bytes(b"".join(lines))
    assert answers(Ledger(tmp_path / "l.jsonl")) == answers_of(records)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_ledger_on_a_read_only_disk_is_read(tmp_path: Path) -> None:
    records = a_year(tmp_path / "l.jsonl")
    lose(tmp_path / "l.jsonl.index")
    tmp_path.chmod(0o555)
    try:
        assert answers(Ledger(tmp_path / "l.jsonl")) == answers_of(records)
    finally:
        tmp_path.chmod(0o755)


def test_a_process_reads_what_it_looks_up_and_not_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_year(tmp_path / "l.jsonl", 1)
    line = (tmp_path / "l.jsonl").read_bytes()
    (tmp_path / "l.jsonl").write_bytes(line * 20_000)
    assert len(Ledger(tmp_path / "l.jsonl").records()) == 20_000  # indexed once
    parsed, parse = list[bytes](), module._parse

    def counted(line: bytes, seq: int | None, path: Path) -> Record:
        parsed.append(line)
        return parse(line, seq, path)

    monkeypatch.setattr(module, "_parse", counted)
    ledger = Ledger(tmp_path / "l.jsonl")
    assert ledger.newest(None, ledger.models()[0]) is not None
    assert ledger.append("skip", "new", DAY, {}, key="once").seq == 20_001
    assert ledger.find("once") is not None
    assert len(parsed) < 10


def look(path: Path, seconds: float) -> None:
    deadline, ledger = time.monotonic() + seconds, Ledger(path)
    while time.monotonic() < deadline:
        for model in ledger.models():
            record = ledger.newest(None, model)
            assert record is not None
            assert record.model == model


def write(path: Path, writer: int) -> None:
    ledger = Ledger(path)
    for number in range(100_000):
        ledger.append("own", f"m{writer}", DAY + timedelta(days=number), {"n": number}, key=f"{writer}/{number}")


def test_killed_writers_beside_readers_leave_an_index_that_fits(tmp_path: Path) -> None:
    path, context = tmp_path / "l.jsonl", multiprocessing.get_context("fork")
    reader = context.Process(target=look, args=(path, 4))
    reader.start()
    for number in range(6):
        writer = context.Process(target=write, args=(path, number))
        size = path.stat().st_size if path.exists() else 0
        writer.start()
        while not path.exists() or path.stat().st_size < size + 3000:
            time.sleep(0.002)
        writer.kill()
        writer.join(30)
    reader.join(60)
    assert reader.exitcode == 0
    ledger = Ledger(path)
    count = ledger.verify()
    kept = ledger.records()
    assert [r.seq for r in kept] == list(range(1, count + 1))
    lose(tmp_path / "l.jsonl.index")
    assert Ledger(path).records() == kept


def test_a_broken_line_stays_an_error(tmp_path: Path) -> None:
    records = a_year(tmp_path / "l.jsonl", 5)
    with (tmp_path / "l.jsonl").open("ab") as file:
        file.write(b"junk\n")
    for _ in range(2):
        with pytest.raises(LedgerError, match="record 6 is not a ledger line"):
            Ledger(tmp_path / "l.jsonl").newest(None, records[0].model)
