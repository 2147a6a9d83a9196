"""What Feast's repository declares, as plain values: the only place of a diagnosis that knows Feast's classes."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["number", "text", "moment", "flag", "other"]
_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("INT32", "INT64", "FLOAT", "DOUBLE"), "number"),
    "STRING": "text",
    "UNIX_TIMESTAMP": "moment",
    "BOOL": "flag",
}
_ON_DEMAND = ("on_demand_feature_view", "OnDemandFeatureView")
_ANYTHING = ".*"
OF_A_MODEL = "feature_views.py"
"""The file in which a model that brings its own features describes them to Feast."""


@dataclass(frozen=True)
class View:
    """A feature view.

    Attributes:
        keys: Its join keys.
        features: Name to kind.
        created: Its created column; empty when it has none.
        on_demand: Whether it is computed when asked for.
        reads: Of an on-demand view, the views that it reads.
        request: Of an on-demand view, the request values that it reads.
    """

    keys: tuple[str, ...]
    features: Mapping[str, Kind]
    created: str = "created"
    on_demand: bool = False
    reads: tuple[str, ...] = ()
    request: tuple[str, ...] = ()


@dataclass(frozen=True)
class Declared:
    """A repository.

    Attributes:
        views: By name.
        services: Name to the views of each, and the features that it takes of them.
    """

    views: Mapping[str, View]
    services: Mapping[str, Mapping[str, tuple[str, ...]]]

    def features_of(self, service: str) -> dict[str, Kind]:
        """Every feature of a service with its kind."""
        chosen = self.services[service]
        return {name: self.views[view].features.get(name, "other") for view, names in chosen.items() for name in names}


def declared(objects: Iterable[Any]) -> Declared:
    """Read Feast's definitions.

    Args:
        objects: Entities, views and services as `feast apply` takes them.
    """
    views: dict[str, View] = {}
    services: dict[str, Mapping[str, tuple[str, ...]]] = {}
    for each in objects:
        kind = type(each).__name__
        if kind == "OnDemandFeatureView":
            views[each.name] = _on_demand(each)
        elif kind == "FeatureService":
            services[each.name] = {p.name: tuple(f.name for f in p.features) for p in each.feature_view_projections}
        elif hasattr(each, "batch_source"):
            created = each.batch_source.created_timestamp_column
            views[each.name] = View(_keys(each), _kinds(each.features), created or "")
    return Declared(views, services)


def _keys(view: Any) -> tuple[str, ...]:
    # Before `apply`, only the entity columns have been told the join keys.
    return tuple(column.name for column in view.entity_columns) or tuple(view.entities)


def _on_demand(view: Any) -> View:
    request = tuple(f.name for source in view.source_request_sources.values() for f in source.schema)
    reads = tuple(projection.name for projection in view.source_feature_view_projections.values())
    return View((), _kinds(view.features), on_demand=True, reads=reads, request=request)


def _kinds(fields: Iterable[Any]) -> dict[str, Kind]:
    return {f.name: _KINDS.get(f.dtype.to_value_type().name, "other") for f in fields}


def around(service: str, files: Iterable[Path]) -> list[Path]:
    """The files whose views a feature service can hold: those of other models only where it could import them.

    Args:
        service: Its name.
        files: All of Feast's files; all of them are returned when none names the service, or one imports another's.
    """
    texts = {file: file.read_text() for file in files}
    near = [file for file, text in texts.items() if file.name != OF_A_MODEL or service in text]
    named = any(service in texts[file] for file in near)
    alone = all(Path(OF_A_MODEL).stem not in texts[file] for file in near)
    return near if named and alone else list(texts)


def services(files: Iterable[Path]) -> set[str] | None:
    """The names of the feature services in Feast's files, told without importing them; None where one is computed."""
    found: set[str] = set()
    for file in files:
        try:
            nodes = list(ast.walk(ast.parse(file.read_text())))
        except SyntaxError:
            return None
        for node in nodes:
            if isinstance(node, ast.Call) and _called(node) == "FeatureService":
                name = next((k.value for k in node.keywords if k.arg == "name"), node.args[0] if node.args else None)
                if not isinstance(name, ast.Constant):
                    return None
                found.add(str(name.value))
    return found


def declarable(files: Iterable[Path]) -> re.Pattern[str]:
    """Names that the on-demand views of Feast's files can declare, told without importing Feast, which takes seconds.

    A name with gaps, such as `f"{prefix}_mean"`, stands for all that it can become, and a schema that is not written
    out for every name.
    """
    return re.compile("|".join(sorted({name for file in files for name in _names(file)})) or "(?!)")


def _names(file: Path) -> Iterator[str]:
    try:
        nodes = list(ast.walk(ast.parse(file.read_text())))
    except SyntaxError:
        # Importing it tells that; here it may declare anything.
        yield _ANYTHING
        return
    for node in nodes:
        if isinstance(node, ast.alias) and node.name in _ON_DEMAND and node.asname:
            yield _ANYTHING
        if isinstance(node, ast.Call) and _called(node) in _ON_DEMAND:
            schema = next((keyword.value for keyword in node.keywords if keyword.arg == "schema"), None)
            yield from map(_field, schema.elts) if isinstance(schema, ast.List | ast.Tuple) else [_ANYTHING]


def _called(call: ast.Call) -> str:
    return str(getattr(call.func, "id", None) or getattr(call.func, "attr", ""))


def _field(field: ast.expr) -> str:
    """The name of one `Field`, as a pattern."""
    if not isinstance(field, ast.Call):
        return _ANYTHING
    name = next((keyword.value for keyword in field.keywords if keyword.arg == "name"), None)
    parts = name.values if isinstance(name, ast.JoinedStr) else [name]
    return "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else _ANYTHING for part in parts)
