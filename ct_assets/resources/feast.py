"""Feast as a Dagster resource, and as what the server uses."""

import fcntl
import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ct_assets.lake.dataset import Dataset
from ct_assets.lake.declaration import DeclarationError
from ct_assets.lake.paths import write_atomically
from ct_assets.resources.lake import HomeResource

if TYPE_CHECKING:
    from feast import FeatureStore, RepoConfig

CHECKOUT = Path(__file__).parents[2]
REPOSITORY = CHECKOUT / "feature_repo"
OF_MODELS = "ct_assets/defs/models/*/feature_views.py"
"""Where a model that brings its own features describes them to Feast, as `OBJECTS`."""
_opening = threading.Lock()


class FeastResource(HomeResource):
    """The feature store under a home; opened once per process."""

    def store(self) -> "FeatureStore":
        """The feature store, with the repository's definitions applied."""
        return feature_store(self.path)


def feature_store(home: Path) -> "FeatureStore":
    """The feature store under `home`, with the repository's definitions registered.

    Args:
        home: `$CT_HOME`.
    """
    with _opening:
        store = _open(home)
        _apply_once(home)
        return store


def serving_store(home: Path) -> "FeatureStore":
    """The feature store under `home` as a server reads it.

    It registers nothing, or an older server that restarts would take newer definitions back; it does not create the
    registry; and it reads the registry again only when told to, so that a request never waits for it.

    Raises:
        OperationalError: The registry is not there.
    """
    with _opening:
        config = _config(home)
        registry = config.registry_config
        assert isinstance(registry, dict)
        registry |= {"cache_ttl_seconds": 0, "schema_mode": "verify"}
        if (file := feature_registry_file(home)) is not None:
            registry["path"] = f"sqlite:///{file.as_uri()}?mode=rw&uri=true"
        from feast import FeatureStore

        return FeatureStore(config=config)


def feature_registry_file(home: Path) -> Path | None:
    """The file of Feast's registry; None where that is a database server."""
    path = yaml.safe_load((REPOSITORY / "feature_store.yaml").read_text())["registry"]["path"]
    return home / "feast" / "registry.db" if str(path).startswith("sqlite") else None


def _import_feast() -> None:
    """Import Feast, which takes seconds, where features are read and nowhere else.

    Its classes are decorated with typeguard's checks of every call's types: half of the import's time, and a quarter of
    a small retrieval's. Type checkers have looked at our calls before.
    """
    import typeguard

    checked = typeguard.typechecked
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        import feast  # noqa: F401
    finally:
        typeguard.typechecked = checked


@cache
def _apply_once(home: Path) -> None:
    _apply(_open(home), home)


@cache
def _open(home: Path) -> "FeatureStore":
    config = _config(home)
    from feast import FeatureStore

    (home / "feast").mkdir(parents=True, exist_ok=True)
    return FeatureStore(config=config)


def _config(home: Path) -> "RepoConfig":
    """The repository's settings for a home, whichever one the environment names."""
    _import_feast()
    from feast import repo_config

    os.environ["CT_HOME"] = str(home)
    return repo_config.load_repo_config(REPOSITORY, REPOSITORY / "feature_store.yaml")


def _apply(store: "FeatureStore", home: Path) -> None:
    """Register the definitions; one process at a time, and only when their files changed."""
    digest, marker = definitions_digest(), _marker(home)
    with (home / "feast" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.exists() and marker.read_text() == digest:
            return
        wanted = definitions()
        names = {(type(o).__name__, o.name) for o in wanted}
        registered: list[Any] = [
            *store.list_feature_services(),
            *store.list_on_demand_feature_views(),
            *store.list_feature_views(),
        ]
        gone = [o for o in registered if (type(o).__name__, o.name) not in names]
        store.apply(wanted, objects_to_delete=gone, partial=False)
        write_atomically(marker, digest.encode())


def definitions() -> list[Any]:
    """All entities, views and services; they import Feast, which takes seconds.

    Raises:
        DeclarationError: Two files describe different things of one name, of which Feast would keep the last.
    """
    _import_feast()
    files = [REPOSITORY / "shared.py", *_of_models()]
    names = [file.relative_to(CHECKOUT) for file in files]
    return together({str(name): import_module(".".join(name.with_suffix("").parts)).OBJECTS for name in names})


def together(files: Mapping[str, Sequence[Any]]) -> list[Any]:
    """The objects of all files; one that two files share is there once.

    Args:
        files: File to its objects.

    Raises:
        DeclarationError: Two of one type and name differ; names both files.
    """
    found: dict[tuple[str, str], tuple[Any, str]] = {}
    for file, objects in files.items():
        for each in objects:
            kind = type(each).__name__
            first, where = found.setdefault((kind, each.name), (each, file))
            if first is not each and first != each:
                raise DeclarationError(
                    f"{kind} {each.name!r} is described in {where} and, differently, in {file}; expected one "
                    "description of a name: rename one of them, or import it from the other file"
                )
    return [each for each, _ in found.values()]


def definition_files() -> list[Path]:
    """The files that hold them."""
    return [*sorted(REPOSITORY.glob("*.py")), *_of_models()]


def _of_models() -> list[Path]:
    return sorted(CHECKOUT.glob(OF_MODELS))


def definitions_digest() -> str:
    """Digest of the files that hold them."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in definition_files())).hexdigest()


def applied_definitions(home: Path) -> str | None:
    """Digest of the definitions that are registered; None when none are."""
    marker = _marker(home)
    return marker.read_text() if marker.exists() else None


def _marker(home: Path) -> Path:
    return home / "feast" / "applied"


def service_versions(store: "FeatureStore", service: str) -> dict[str, str]:
    """What a feature service stands for: each of its views with a digest of its definition.

    Returns:
        View name to digest; two equal digests mean the same features, types, source, keys, freshness, on-demand code,
        and the same SQL that computes the newest stored rows.
    """
    root = Path(store.config.offline_store.root)
    projections = store.get_feature_service(service).feature_view_projections
    stored = {view.name: view for view in store.list_feature_views()}
    computed = {view.name: view for view in store.list_on_demand_feature_views()}
    versions = {}
    for projection in projections:
        parts = sorted(f"{f.name}:{f.dtype}" for f in projection.features)
        view: Any = stored.get(projection.name)
        on_demand: Any = computed.get(projection.name)
        if view:
            parts += [str(view.ttl), *view.join_keys, view.batch_source.path, view.batch_source.timestamp_field]
            parts.append(Dataset((root / view.batch_source.path).parent).definition)
        if on_demand:
            parts.append(on_demand.feature_transformation.udf_string)
        versions[projection.name] = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return dict(sorted(versions.items()))


def versions_digest(versions: Mapping[str, str]) -> str:
    """One short digest for all views of a service."""
    return hashlib.sha256(repr(sorted(versions.items())).encode()).hexdigest()[:16]
