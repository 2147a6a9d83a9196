"""Versions of what is stored.

Fields and checks that are added leave a version as it is: readers pass over what they do not know. A version rises only
where older code would misread what is stored.
"""

from collections.abc import Mapping
from typing import Any


def newer_schema(document: Mapping[str, Any], known: int) -> str:
    """Why this code must not read a stored document; empty if it may.

    Args:
        document: As it was stored; one without a version is of the first.
        known: The newest version that this code reads.
    """
    found = document.get("schema_version", 1)
    if isinstance(found, int) and 1 <= found <= known:
        return ""
    return (
        f"has schema version {found!r}, and this version of ct_assets reads versions 1 to {known}: it was written by a "
        "newer one; install that one, or restore a home from before"
    )
