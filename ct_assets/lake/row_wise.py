"""Whether a query makes each of its rows from one row of its table, and of which moment that row is."""

import json
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

from ct_assets.lake.engine import cursor

KNOWN = "_known_at"
"""Column of a rewritten query with the `known_at` of the row that each row is made from."""

_OF_SEVERAL_ROWS = ("WINDOW", "SUBQUERY")


@lru_cache(maxsize=256)
def row_wise(sql: str, source: str) -> str | None:
    """The query with a further column `KNOWN`, if each of its rows is made from one row of `source` alone.

    That is a selection of columns, scalar functions of them and a filter, with or without DISTINCT and ORDER BY.

    Args:
        sql: DuckDB SQL.
        source: The table that it reads, which has a column `known_at`.

    Returns:
        None for a query that looks at several rows together, and for what DuckDB cannot parse.
    """
    with cursor() as connection:
        parsed = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
        tree: dict[str, Any] = json.loads(parsed[0]) if parsed else {"error": True}
        if tree["error"] or len(tree["statements"]) != 1:
            return None
        node = tree["statements"][0]["node"]
        if not _selects_rows(node, source) or not _is_scalar(node):
            return None
        table = node["from_table"]
        names = [table["alias"] or table["table_name"], "known_at"]
        column = {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": KNOWN, "query_location": 0}
        node["select_list"].append({**column, "column_names": names})
        # Their order is lost among the rows that follow.
        node["modifiers"] = [each for each in node["modifiers"] if each["type"] != "ORDER_MODIFIER"]
        written = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchone()
    return None if written is None else str(written[0])


def _selects_rows(node: dict[str, Any], source: str) -> bool:
    table = node.get("from_table") or {}
    return (
        node["type"] == "SELECT_NODE"
        and table.get("type") == "BASE_TABLE"
        and table["table_name"] == source
        and not (table["sample"] or table["column_name_alias"] or node["cte_map"]["map"])
        and not any(node[name] for name in ("group_expressions", "group_sets", "having", "sample", "qualify"))
        and node["aggregate_handling"] == "STANDARD_HANDLING"
        and all(
            each["type"] in ("ORDER_MODIFIER", "DISTINCT_MODIFIER") and not each.get("distinct_on_targets")
            for each in node["modifiers"]
        )
    )


def _is_scalar(node: dict[str, Any]) -> bool:
    return all(
        part.get("class") not in _OF_SEVERAL_ROWS
        and (part.get("class") != "FUNCTION" or part["function_name"] in _scalar_functions())
        for part in _parts([node["select_list"], node["where_clause"]])
    )


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _parts(child)


@cache
def _scalar_functions() -> frozenset[str]:
    """Names of the functions, and of the macros made of them alone, that look at one row."""
    sql = "SELECT function_name, function_type, macro_definition FROM duckdb_functions()"
    with cursor() as connection:
        found = connection.execute(sql).fetchall()
    aggregates = {name for name, kind, _ in found if kind in ("aggregate", "window")}
    scalar = {name for name, kind, _ in found if kind == "scalar"} - aggregates
    macros = {name: definition for name, kind, definition in found if kind == "macro"}
    while made := {name for name, of in macros.items() if set(re.findall(r"(\w+)\(", str(of))) <= scalar} - scalar:
        scalar |= made
    return frozenset(scalar)
