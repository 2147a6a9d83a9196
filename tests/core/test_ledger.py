import errno
import json
import multiprocessing
import os
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pytest

from ct_assets.core.ledger import GENESIS, Ledger, LedgerError, Record

DAY = datetime(2013, 5, 1, tzinfo=UTC)


def filled(path, records=5):
    ledger = Ledger(path, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    for i in range(records):
        ledger.append("retrain" if i % 2 else "skip", f"m{i % 3}", DAY, {"i": i}, key=f"k{i}")
    return ledger


def test_records_come_back_as_they_were_written(tmp_path):
    record = Ledger(tmp_path / "deep" / "l.jsonl").append(
        "promote", "m", "2013-05-01T02:00:00+02:00", {"auc": np.float64(0.7), "nan": np.nan, "t": DAY}
    )
    assert (record.seq, record.prev, record.as_of) == (1, GENESIS, "2013-05-01T00:00:00+00:00")
    assert record.evidence == {"auc": 0.7, "nan": None, "t": "2013-05-01T00:00:00+00:00"}
    assert Ledger(tmp_path / "deep" / "l.jsonl").records() == [record]


def test_records_are_found_by_kind_and_model(tmp_path):
    ledger = filled(tmp_path / "l.jsonl", 7)
    assert [r.evidence["i"] for r in ledger.records(kind="skip")] == [0, 2, 4, 6]
    assert [r.evidence["i"] for r in ledger.records(model="m0", newest_first=True)] == [6, 3, 0]
    assert ledger.find("k2").seq == 3
    assert ledger.find("nothing") is None


def test_each_record_holds_the_hash_of_the_one_before(tmp_path):
    ledger = filled(tmp_path / "l.jsonl")
    records = ledger.records()
    assert [r.prev for r in records] == [GENESIS, *[r.hash for r in records[:-1]]]
    assert ledger.head() == records[-1].hash
    assert ledger.verify() == 5


def test_a_key_is_recorded_once(tmp_path):
    ledger = filled(tmp_path / "l.jsonl")
    again = Ledger(tmp_path / "l.jsonl").append("retrain", "m1", DAY, {"other": 1}, key="k1")
    assert again == ledger.records()[1]
    assert len(ledger.records()) == 5


def test_a_key_of_another_model_is_refused(tmp_path):
    with pytest.raises(LedgerError, match="record 2 of model 'm1', not 'x'"):
        filled(tmp_path / "l.jsonl").append("retrain", "x", DAY, {}, key="k1")


def change_evidence(lines):
    lines[2] = lines[2].replace('"i":2', '"i":9')


def change_time(lines):
    lines[2] = lines[2].replace("2013-05-01", "2013-05-02")


def remove(lines):
    del lines[2]


def swap(lines):
    lines[2], lines[3] = lines[3], lines[2]


def break_json(lines):
    lines[2] = "{" + lines[2]


def add_white_space(lines):
    lines[2] = lines[2].replace('"i":2', '"i": 2')


def rehash(lines):
    record = json.loads(lines[1])
    record["evidence"] = {"i": 9}
    record["hash"] = Record(**record).computed_hash()
    lines[1] = json.dumps(record, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("tamper", [change_evidence, change_time, remove, swap, break_json, add_white_space, rehash])
def test_tampering_is_found_at_its_record(tmp_path, tamper):
    path = tmp_path / "l.jsonl"
    filled(path)
    lines = path.read_text().splitlines()
    tamper(lines)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(LedgerError, match="record 3") as caught:
        Ledger(path).verify()
    assert caught.value.seq == 3


@pytest.mark.parametrize("cut", [1, 20, "newline", "carriage return"])
def test_a_torn_last_line_is_moved_aside_and_nothing_is_lost(tmp_path, cut):
    path = tmp_path / "l.jsonl"
    reader = filled(path)
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    torn = {"newline": whole[start:-1], "carriage return": b"ab\rcd"}.get(cut) or whole[start : start + cut]
    path.write_bytes(whole[:start] + torn)
    assert len(Ledger(path).records()) == 4  # a reader never sees the torn line
    record = Ledger(path).append("retry", "m1", DAY, {"i": 4}, key="k4")
    assert record.seq == 5
    assert (tmp_path / "l.jsonl.torn").read_bytes() == torn + b"\n"
    assert Ledger(path).verify() == 5
    assert [r.kind for r in reader.records()][-1] == "retry"  # an index of the old file is rebuilt


def test_a_ledger_put_in_place_of_another_is_read_anew(tmp_path):
    ledger = filled(tmp_path / "l.jsonl", 3)
    filled(tmp_path / "other.jsonl", 2).append("restored", "m", DAY, {"long": "x" * 2000})
    (tmp_path / "l.jsonl").write_bytes((tmp_path / "other.jsonl").read_bytes())
    assert ledger.append("next", "m", DAY, {}).seq == 4
    assert ledger.verify() == 4
    (tmp_path / "l.jsonl").unlink()
    assert ledger.records() == []
    assert ledger.append("next", "m", DAY, {}).seq == 1


def test_a_broken_line_in_the_middle_stops_appends(tmp_path):
    path = tmp_path / "l.jsonl"
    filled(path)
    path.write_text("junk\n" + path.read_text())
    with pytest.raises(LedgerError, match="record 1 is not a ledger line"):
        Ledger(path).append("x", "m", DAY, {})


@pytest.mark.parametrize(
    ("as_of", "evidence", "error", "message"),
    [(datetime(2013, 1, 1), {}, ValueError, "no time zone"), (DAY, {"a": object()}, TypeError, r"evidence\.a")],
)
def test_what_has_no_record_form_is_refused_before_writing(tmp_path, as_of, evidence, error, message):
    with pytest.raises(error, match=message):
        Ledger(tmp_path / "l.jsonl").append("x", "m", as_of, evidence)
    assert not (tmp_path / "l.jsonl").exists()


def append_many(path, worker, times):
    ledger = Ledger(path)
    for i in range(times):
        ledger.append("own", f"m{worker}", DAY, {"i": i})
        ledger.append("shared", "m", DAY, {"worker": worker}, key=f"shared-{i}")


def test_processes_append_together_without_losing_or_repeating_a_record(tmp_path):
    path = tmp_path / "l.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_many, args=(path, w, 25)) for w in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    ledger = Ledger(path)
    assert ledger.verify() == 4 * 25 + 25
    for w in range(4):
        assert [r.evidence["i"] for r in ledger.records("own", f"m{w}")] == list(range(25))
    assert sorted(r.key for r in ledger.records("shared")) == sorted(f"shared-{i}" for i in range(25))


def test_a_killed_writer_leaves_a_ledger_that_goes_on(tmp_path):
    path = tmp_path / "l.jsonl"
    for round_ in range(5):
        writer = multiprocessing.get_context("fork").Process(target=append_many, args=(path, round_, 10_000))
        writer.start()
        while not path.exists() or path.stat().st_size < 4000 * (round_ + 1):
            time.sleep(0.005)
        writer.kill()
        writer.join(10)
    ledger = Ledger(path)
    before = ledger.verify()
    assert ledger.append("after", "m", DAY, {}).seq == before + 1  # the lock died with its holder
    assert ledger.verify() == before + 1


def test_threads_share_one_ledger(tmp_path):
    ledger = Ledger(tmp_path / "l.jsonl")
    threads = [threading.Thread(target=lambda: [ledger.append("x", "m", DAY, {}) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.verify() == 80


def test_appends_do_not_read_the_history_again(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    ledger = Ledger(tmp_path / "l.jsonl")
    for i in range(5000):
        ledger.append("x", "m", DAY, {"i": i})
    lines, loads = [], json.loads
    monkeypatch.setattr("json.loads", lambda text, **given: (lines.append(text), loads(text, **given))[1])
    for i in range(50):
        ledger.append("x", "m", DAY, {"i": i})
    assert len(lines) <= 3 * 50


def test_the_newest_record_is_that_of_the_latest_moment_and_of_equal_ones_the_last_written(tmp_path):
    ledger, days = Ledger(tmp_path / "l.jsonl"), ["2013-02-03", "2013-02-01", "2013-02-03", "2013-02-02"]
    for i, day in enumerate(days):
        ledger.append("skip" if i else "retrain", "m", f"{day}T00:00:00+00:00", {"i": i})
    ledger.append("skip", "other", "2014-01-01T00:00:00+00:00", {"i": 9})
    # Of the third, written with another offset, the moment counts and not its text.
    ledger.append("training", "m", "2013-02-02T23:30:00-01:00", {"i": 5})

    def found(*arguments):
        record = ledger.newest(*arguments)
        return record and record.evidence["i"]

    third = datetime(2013, 2, 3, tzinfo=UTC)
    assert found(["retrain", "skip"], "m") == 2
    assert found(["retrain"], "m") == 0
    assert found(["retrain", "skip"], "m", third) == 3
    assert found(None, "m") == 5
    assert found(None, "m", third) == 3
    assert found(["verdict"], "m") is None
    assert found(None, "unknown") is None


def test_a_disk_that_takes_half_a_record_is_no_fault_of_the_data(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    first = ledger.append("skip", "m", "2024-01-01T00:00:00Z", {"n": 1})
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[: len(line) // 2]))
    with pytest.raises(OSError, match=r"the disk took \d+ of \d+ bytes") as caught:
        ledger.append("skip", "m", "2024-01-02T00:00:00Z", {"n": 2})
    assert caught.value.errno == errno.ENOSPC and not isinstance(caught.value, ValueError)
    monkeypatch.setattr(os, "write", write)
    assert ledger.records() == [first]
    assert ledger.append("skip", "m", "2024-01-02T00:00:00Z", {"n": 2}).seq == 2
