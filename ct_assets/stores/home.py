"""Where `$CT_HOME` is for Feast, when nobody says so.

Feast puts environment variables into feature_store.yaml, and leaves one that is not set as it is. `feast apply` and
`FeatureStore("feature_repo")` then mean the default home, like `ct`.
"""

from pathlib import Path
from typing import Any

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.url import URL

from ct_assets.lake.paths import default_home

VARIABLE = "${CT_HOME}"
SCHEME = "sqlite+ct_home"
"""URLs of SQLite databases under the home: `sqlite+ct_home:///${CT_HOME}/feast/registry.db`."""


def in_home(path: str) -> str:
    """A path with the default home in the place of a variable that is not set."""
    return path.replace(VARIABLE, str(default_home()))


class HomeSqliteDialect(SQLiteDialect_pysqlite):
    """SQLite whose file may lie in a home that is not there yet."""

    supports_statement_cache = True

    def create_connect_args(self, url: URL) -> Any:
        """What `sqlite3.connect` is given."""
        path = Path(in_home(str(url.database)))
        path.parent.mkdir(parents=True, exist_ok=True)
        return super().create_connect_args(url.set(database=str(path)))


registry.register("sqlite.ct_home", __name__, HomeSqliteDialect.__name__)
