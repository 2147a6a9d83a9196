"""Checks of what the model reads against what Feast declares and the feature sets compute."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from ct_assets.core.strict import unknown
from ct_assets.lib.diagnosis.declared import Declared, Kind, View, around, declarable, services
from ct_assets.lib.diagnosis.finding import CannotTellError, Finding
from ct_assets.lib.diagnosis.model import Examined
from ct_assets.lib.diagnosis.queries import view_schema

SERVICE, VIEWS, INPUTS, ENTITIES = "feature service", "feature views", "inputs", "entities"
_FITS: Mapping[Kind, tuple[str, ...]] = {
    "number": ("int", "uint", "double", "float", "decimal", "bool"),
    "text": ("string", "large_string"),
    "moment": ("timestamp",),
    "flag": ("bool",),
}


def service_is_declared(model: Examined) -> Iterator[Finding]:
    """Feast knows the feature service."""
    known = _repository(model).services
    if model.spec.feature_service not in known:
        told = unknown("feature service", model.spec.feature_service, known)
        yield Finding("error", SERVICE, model.at("feature_service"), told, remedy="declare it to Feast, or name it")


def service_can_be_there(model: Examined, feast_files: Iterable[Path]) -> Iterator[Finding]:
    """The same without Feast: told is a name that no file of Feast's gives to a service."""
    files, name = list(feast_files), model.spec.feature_service
    if not files or any(name in file.read_text() for file in files):
        return
    if known := services(files):
        told = unknown("feature service", name, known)
        yield Finding("error", SERVICE, model.at("feature_service"), told, remedy="declare it to Feast, or name it")


def views_are_computed(model: Examined) -> Iterator[Finding]:
    """Every view that the service reads has SQL that computes it, and every SQL has its view."""
    repository = _repository(model)
    computed = {view for view, _, _ in model.views()}
    for view in sorted(_stored(repository, _service(model, repository)) - computed):
        told = f"view {view!r} of service {model.spec.feature_service!r} is computed by no FeatureSet of the model"
        remedy = "add it to `own_feature_sets`, or to `feature_sets` when another model computes it"
        yield Finding("error", VIEWS, model.at("feature_sets"), told, remedy=remedy)
    for view in sorted(computed - repository.views.keys()):
        told = unknown("feature view", view, [name for name, v in repository.views.items() if not v.on_demand])
        yield Finding("error", VIEWS, f"FeatureSql {view!r}", told, remedy="declare it to Feast, or name it so")


def views_are_as_declared(model: Examined) -> Iterator[Finding]:
    """The SQL of a view yields the join key and exactly the features that Feast's view declares, of their types."""
    repository = _repository(model)
    both = [found for found in model.views() if found[0] in repository.views]
    if not both:
        raise CannotTellError("no view has both SQL and a declaration")
    for view, how, features in both:
        try:
            found = view_schema(features.source, how)
        except duckdb.Error:
            # Another check tells that.
            continue
        yield from _differences(view, repository.views[view], found)


def _differences(name: str, view: View, found: pa.Schema) -> Iterator[Finding]:
    where = f"FeatureSql {name!r}"
    if not view.created:
        remedy = "without it, training would see rows before they were known"
        yield Finding("error", VIEWS, f"Feast view {name!r}", "no created_timestamp_column", "created", remedy)
    if "event_timestamp" not in found.names:
        return
    at = found.names.index("event_timestamp")
    keys = tuple(found.names[:at])
    if keys != view.keys:
        told = f"join key {', '.join(keys) or 'none'}"
        yield Finding("error", VIEWS, where, told, f"{', '.join(view.keys)}, as Feast declares", "rename it in the SQL")
    computed = [column for column in found.names[at + 1 :] if column != "created"]
    for feature in sorted(view.features.keys() - set(computed)):
        told = unknown("column", feature, computed) if computed else f"no column {feature}"
        yield Finding("error", VIEWS, where, f"Feast declares {feature!r}, which the SQL does not yield: {told}")
    for feature in computed:
        if feature not in view.features:
            told = f"yields {feature!r}, which Feast does not declare: {unknown('feature', feature, view.features)}"
            yield Finding("error", VIEWS, where, told, remedy="declare it, or leave it out of the SELECT")
        elif not _fits(view.features[feature], found.field(feature).type):
            told = f"column {feature} is {found.field(feature).type}"
            yield Finding("error", VIEWS, where, told, f"a {view.features[feature]}, as Feast declares", "convert it")


def inputs_are_there(model: Examined) -> Iterator[Finding]:
    """Every input is a feature of the service, an entity or a request value, and of a kind that fits."""
    repository = _repository(model)
    _service(model, repository)
    features = repository.features_of(model.spec.feature_service)
    known = {*features, *model.spec.entities, *model.spec.request}
    for name, kind in model.spec.inputs.items():
        if name not in known:
            yield _unknown_input(model, name, known)
        elif kind == "numeric" and (features.get(name) == "text" or model.spec.request.get(name) == "string"):
            told = f"{name} is numeric, and holds text"
            remedy = "text that is no number becomes missing: call it categorical"
            yield Finding("error", INPUTS, model.at(f"inputs.{name}"), told, "a number", remedy)


def inputs_can_be_there(model: Examined, feast_files: Iterable[Path]) -> Iterator[Finding]:
    """Every input is something that can be given.

    The same without Feast, which takes seconds to import: told are names that nothing at all can give.

    Args:
        model: What is examined.
        feast_files: Where Feast's views are declared; on-demand features exist there alone.
    """
    known = {*model.spec.entities, *model.spec.request}
    for _, how, features in model.views():
        try:
            known |= {*view_schema(features.source, how).names} - {"event_timestamp", "created"}
        except duckdb.Error:
            return
    left = [name for name in model.spec.inputs if name not in known]
    on_demand = declarable(around(model.spec.feature_service, feast_files)) if left else None
    for name in left:
        if on_demand and not on_demand.fullmatch(name):
            yield _unknown_input(model, name, known)


def _unknown_input(model: Examined, name: str, known: Iterable[str]) -> Finding:
    remedy = "a value that only the events' SQL yields belongs into `request`, so that a caller sends it"
    return Finding("error", INPUTS, model.at(f"inputs.{name}"), unknown("input", name, known), remedy=remedy)


def entities_cover_the_keys(model: Examined) -> Iterator[Finding]:
    """The entities are the join keys of the service's views, and the request values what on-demand views read."""
    repository, spec = _repository(model), model.spec
    views = _service(model, repository)
    keys = {key: view for view in sorted(_stored(repository, views)) for key in repository.views[view].keys}
    for key, view in keys.items():
        if key not in spec.entities:
            told = f"no {key!r}, the join key of view {view!r}"
            remedy = "add it, and yield it in events.sql"
            yield Finding("error", ENTITIES, model.at("entities"), told, ", ".join(sorted(keys)), remedy)
    for name in spec.entities:
        if name not in keys and name not in spec.inputs:
            told = f"{name!r} is no join key of the service's views ({', '.join(sorted(keys)) or 'none'}), and no input"
            yield Finding("warning", ENTITIES, model.at("entities"), told, remedy="leave it out")
    for view in views:
        for value in repository.views[view].request:
            if value not in spec.request:
                told = f"no {value!r}, which on-demand view {view!r} reads"
                yield Finding("error", ENTITIES, model.at("request"), told, remedy="add it, and yield it in events.sql")


def _repository(model: Examined) -> Declared:
    if model.declared is None:
        raise CannotTellError("Feast's repository is not loaded")
    return model.declared


def _service(model: Examined, repository: Declared) -> list[str]:
    """Names of the service's views."""
    if model.spec.feature_service not in repository.services:
        raise CannotTellError(f"Feast has no service {model.spec.feature_service!r}")
    return [view for view in repository.services[model.spec.feature_service] if view in repository.views]


def _stored(repository: Declared, views: Iterable[str]) -> set[str]:
    """The views whose rows are stored: on-demand ones are replaced by those that they read."""
    known = repository.views
    return {s for v in views for s in (known[v].reads if known[v].on_demand else (v,)) if s in known}


def _fits(declared: Kind, found: pa.DataType) -> bool:
    return declared not in _FITS or str(found).startswith(_FITS[declared])
