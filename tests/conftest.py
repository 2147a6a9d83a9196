"""The order of the tests: files that take minutes come first, so that no process is left alone with one at the end."""

from pathlib import Path

import pytest

LONGEST = ["test_daemon", "test_examples", "test_demo", "test_tutorial", "test_benchmarks", "test_continuous_training"]
LONG = ["integration", "components", "golden", "faults", "resources"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by file; the order within each stays."""
    items.sort(key=lambda item: _rank(item.path))


def _rank(path: Path) -> int:
    if path.stem in LONGEST:
        return LONGEST.index(path.stem)
    return len(LONGEST) + (path.parent.name not in LONG)
