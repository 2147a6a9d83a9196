"""The database that all queries of a process share."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ct_assets.lake.engine import cursor


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path, other = tmp_path / "rows.parquet", tmp_path / "other.parquet"
    for number in range(1, 30):
        columns = {"a": list(range(number))} | ({"b": [1] * number} if number % 2 else {})
        pq.write_table(pa.table(columns), other)
        other.replace(path)
        with cursor() as connection:
            found = connection.execute(f"SELECT * FROM read_parquet('{path}')").to_arrow_table()
        assert (found.num_rows, found.column_names) == (number, list(columns))
