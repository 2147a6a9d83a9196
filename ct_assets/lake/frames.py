"""From Arrow to pandas without loss: whole numbers stay whole, and ids can be joined."""

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

NULLABLE = {
    pa.type_for_alias(dtype.name.lower()): dtype
    for dtype in (
        *(pd.Int8Dtype(), pd.Int16Dtype(), pd.Int32Dtype(), pd.Int64Dtype()),
        *(pd.UInt8Dtype(), pd.UInt16Dtype(), pd.UInt32Dtype(), pd.UInt64Dtype()),
    )
}
EXACT = 2**53
"""Up to here a float holds every whole number."""


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A table in pandas, in which whole numbers beside missing ones stay whole.

    pandas would make floats of them, and 2**53 + 1 would become 2**53.

    Returns:
        Whole numbers with missing ones in pandas' nullable types, all else as pandas has it.
    """
    frame = table.to_pandas()
    for field in table.schema:
        if pa.types.is_integer(field.type) and table[field.name].null_count:
            frame[field.name] = table[field.name].to_pandas(types_mapper=NULLABLE.get)
    return frame


def with_whole_ids(table: pa.Table, name: str, what: str) -> pa.Table:
    """A table whose ids are text or 64-bit whole numbers, as they are joined with those of others.

    Args:
        table: With a column of ids.
        name: That column.
        what: Names the query in an error message.

    Raises:
        ValueError: The ids are floats that are not whole, or so large that some have lost digits.
    """
    ids = table[name]
    if pa.types.is_floating(ids.type):
        try:
            whole = ids.cast(pa.int64())
            exact = all(abs(value) <= EXACT for value in pc.min_max(whole).as_py().values() if value is not None)
        except pa.ArrowInvalid:
            exact = False
        if not exact:
            raise ValueError(
                f"{what} yields {name} as {ids.type}, in which whole numbers beyond 2^53 lose digits; expected whole "
                "numbers or text: declare the source's column as such, or CAST it before it is combined with others"
            )
    elif pa.types.is_uint64(ids.type) or (pa.types.is_decimal(ids.type) and ids.type.scale == 0):
        try:
            whole = ids.cast(pa.int64())
        except pa.ArrowInvalid:
            return table
    else:
        return table
    return table.set_column(table.schema.get_field_index(name), name, whole)
