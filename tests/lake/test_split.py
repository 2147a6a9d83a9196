"""One file of many days: every row lands once, on its own day, as it was written."""

import io

import pandas as pd
import pandera.pandas as pa
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest

from ct_assets.lake.contract import Source
from ct_assets.lake.formats import UnreadableError, read
from ct_assets.lake.split import split_by_day

SCHEMA = pa.DataFrameSchema(
    {"id": pa.Column(int), "note": pa.Column(object, nullable=True), "known_at": pa.Column("datetime64[us, UTC]")}
)
ROWS = [
    (1, "late; on purpose", "2024-03-02T00:30:00+02:00"),
    (2, 'said "no"', "2024-03-02T00:00:00Z"),
    (3, None, "2024-03-01T23:59:59.999999Z"),
    (4, "naïve\nof two lines", "2024-03-05T12:00:00Z"),
]
DAYS = {"2024-03-01": [1, 3], "2024-03-02": [2], "2024-03-05": [4]}
"""By hand: 00:30 in a zone two hours ahead is 22:30 UTC of the day before."""


def source(**how: str) -> Source:
    return Source(name="notes", schema=SCHEMA, key=("id",), description="Notes", owner="team:t", **how)  # type: ignore[arg-type]


def frame() -> pd.DataFrame:
    rows = pd.DataFrame(ROWS, columns=["id", "note", "known_at"])
    return rows.assign(known_at=pd.to_datetime(rows["known_at"], utc=True, format="ISO8601"))


def in_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(arrow.Table.from_pandas(frame(), preserve_index=False), sink)
    return sink.getvalue()


def in_arrow() -> bytes:
    table, sink = arrow.Table.from_pandas(frame(), preserve_index=False), io.BytesIO()
    with arrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def in_csv(delimiter: str, encoding: str) -> bytes:
    text = pd.DataFrame(ROWS, columns=["id", "note", "known_at"]).to_csv(index=False, sep=delimiter)
    return text.encode(encoding)


def in_json() -> bytes:
    return pd.DataFrame(ROWS, columns=["id", "note", "known_at"]).to_json(orient="records", lines=True).encode()


FILES = {
    "parquet": (source(), in_parquet()),
    "arrow": (source(format="arrow"), in_arrow()),
    "csv": (source(format="csv"), in_csv(",", "utf-8")),
    "semicolons in Latin-1": (
        source(format="csv", delimiter=";", encoding="latin-1"),
        in_csv(";", "latin-1"),
    ),
    "json": (source(format="json"), in_json()),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_row_lands_once_on_its_day_as_it_was(kind: str) -> None:
    of, payload = FILES[kind]
    parts = split_by_day(of, payload)
    assert list(parts) == list(DAYS)
    tables = [read(of, part).table for part in parts.values()]
    assert [table["id"].to_pylist() for table in tables] == list(DAYS.values())
    together = arrow.concat_tables(tables).to_pandas().sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(together, read(of, payload).table.to_pandas(), check_dtype=False)


def test_a_line_of_json_ends_at_its_newline_alone() -> None:
    of = FILES["json"][0]
    notes = {"2024-03-01": "two\u2028lines", "2024-03-02": "next\x85line"}
    lines = [f'{{"id": 1, "note": "{note}", "known_at": "{day}T00:00:00Z"}}' for day, note in notes.items()]
    for end in ("\n", "\r\n"):
        parts = split_by_day(of, end.join(lines).encode())
        assert {day: read(of, part).table["note"].to_pylist() for day, part in parts.items()} == {
            day: [note] for day, note in notes.items()
        }


def test_the_text_of_a_moment_is_not_rewritten() -> None:
    parts = split_by_day(*FILES["csv"])
    assert b"2024-03-02T00:30:00+02:00" in parts["2024-03-01"]


def test_a_file_without_known_at_or_zone_is_told() -> None:
    of = FILES["csv"][0]
    with pytest.raises(ValueError, match="column known_at is missing; found id, note"):
        split_by_day(of, b"id,note\n1,x\n")
    with pytest.raises(ValueError, match=r"column known_at is empty in 1 row\(s\)"):
        split_by_day(of, b"id,note,known_at\n1,x,\n2,x,2024-03-01T00:00:00Z\n")
    with pytest.raises(UnreadableError, match="without a time zone"):
        split_by_day(of, b"id,note,known_at\n1,x,2024-03-01 10:00\n")


@pytest.mark.parametrize("odd", ["\u2028", "\x85"])
def test_what_separates_lines_elsewhere_stays_within_a_json_line(odd: str) -> None:
    payload = f'{{"id": 1, "note": "two{odd}parts", "known_at": "2024-03-01T00:00:00Z"}}\n'.encode()
    assert split_by_day(source(format="json"), payload) == {"2024-03-01": payload}


def test_an_object_on_several_lines_stays_as_it_is() -> None:
    first, second = '{"id": 1,\n"known_at": "2024-03-01T00:00:00Z"}', '{"id": 2, "known_at": "2024-03-02T00:00:00Z"}'
    parts = split_by_day(source(format="json"), f"{first} {second}".encode())
    assert parts == {"2024-03-01": f"{first}\n".encode(), "2024-03-02": f"{second}\n".encode()}


def test_a_long_text_is_cut_like_any_other() -> None:
    payload = f"id,note,known_at\n1,{'x' * 200_000},2024-03-01T00:00:00Z\n".encode()
    assert split_by_day(source(format="csv"), payload) == {"2024-03-01": payload}
