from pathlib import Path

import pytest
from world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Shared, as opening MLflow and Feast takes seconds; each test promotes models under a name of its own."""
    return World(Path(tmp_path_factory.mktemp("home")))
