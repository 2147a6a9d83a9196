"""The check of a column that cuts a model into segments."""

import pyarrow as pa
import pyarrow.compute as pc

from ct_assets.lib.diagnosis.finding import Finding

SEGMENTS = "segments"
MOST = 1000
"""More segments than this are no segments: each is a model with assets, gate and drift report of its own."""


def too_many_segments(column: str, values: pa.ChunkedArray, where: str, most: int = MOST) -> Finding | None:
    """What is wrong with a segment column, None when nothing.

    Args:
        column: Its name.
        values: Its values in the events that have arrived.
        where: File and field that name it.
        most: How many segments a model may have.
    """
    counted = pc.count_distinct(values, mode="only_valid").as_py()
    if counted > most:
        told = f"column {column!r} has {counted:,} values in {len(values):,} events"
        remedy = "a key such as a customer's is an input, or a feature's join key; segment by a column such as country"
        return Finding("error", SEGMENTS, where, told, f"at most {most:,} segments", remedy)
    if values.null_count:
        told = f"column {column!r} is missing in {values.null_count:,} of {len(values):,} events"
        return Finding("warning", SEGMENTS, where, told, "a segment for each event", "give those one in events.sql")
    return None
