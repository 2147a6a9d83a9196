"""Online features of one model: its own columns, each no older than its view allows.

Feast does not enforce a view's ttl online, and it would compute on-demand features from expired values, which
training never saw. So the stored features are read first, the expired ones are dropped, and then the on-demand views
are applied, as it happens offline.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ct_assets.core.spec import ModelSpec
from ct_assets.core.strict import unknown
from ct_assets.serving.one_by_one import one_by_one
from ct_assets.serving.schemas import Columns
from ct_assets.stores.unavailable import OnlineStoreUnavailable

if TYPE_CHECKING:
    from feast import FeatureStore, OnDemandFeatureView
    from feast.online_response import OnlineResponse

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

NEWEST_ONLY = timedelta(days=1)
"""How much newer than the time asked about a row may be.

The online store only has the newest row of each key, so it cannot say what was known long before. A day, as recorded
arrivals are published a day at a time.
"""


@dataclass
class Features:
    """Features of some instances.

    Attributes:
        columns: Every column the model reads, and every one that was given.
        times: For each instance the event time of each view's row, ISO 8601 in UTC; None where missing or expired.
        absent: How often a view gave nothing, by view and reason (`missing` or `expired`).
        problems: By instance, why nothing can be computed from what was asked.
        lacking: By instance, which fresh features it would need for a prediction.
    """

    columns: Columns
    times: list[dict[str, str | None]]
    absent: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: dict[int, str] = field(default_factory=dict)
    lacking: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _View:
    """What a request needs of a view; Feast's own object checks the types of every answer, which costs more."""

    name: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    ttl: timedelta | None

    @property
    def features(self) -> list[str]:
        """Names of its features that are read."""
        return [column.removeprefix(f"{self.name}__") for column in self.columns]


class FeatureReader:
    """Reads what a model needs through Feast.

    Args:
        store: The feature store; shared by all readers of the process.
        spec: The model.

    Raises:
        ValueError: The model reads something that its service, entities and request do not have.
    """

    def __init__(self, store: "FeatureStore", spec: ModelSpec) -> None:
        self.store = store
        self.serving = spec.serving
        self._given = {*spec.entities, *spec.request}
        self.columns = [column for column in spec.columns if column not in self._given]
        owners = _owners(store, spec, self.columns)
        on_demand = {view.name: view for view in store.list_on_demand_feature_views()}
        self.on_demand = [on_demand[name] for name in dict.fromkeys(owners.values()) if name in on_demand]
        stored = [(view, column) for column, view in owners.items() if view not in on_demand]
        for view in self.on_demand:
            stored += _sources(view, spec)
        self.refs = [f"{view}:{feature}" for view, feature in dict.fromkeys(stored)]
        self.views = _views(store, spec, dict.fromkeys(stored))
        self.definitions = {view.name: store.get_feature_view(view.name) for view in self.views}
        self._names = {column: f"{view}__{column}" for column, view in owners.items() if view not in on_demand}
        self.key_types = _key_types(store, spec)
        self._behind = _behind(owners, self.on_demand)
        known = [view.name for view in self.views]
        if odd := [name for name in spec.serving.required_views if name not in known]:
            raise ValueError(f"model {spec.name}: serving.required_views: {unknown('view', odd[0], known)}")

    def read(self, given: Columns, at: datetime) -> Features:
        """Read the features of some instances.

        Args:
            given: Entity keys and request values.
            at: Timestamp that freshness is judged against, with a time zone.

        Raises:
            OnlineStoreUnavailable: The online store is gone or cannot be read.
        """
        rows = len(next(iter(given.values())))
        features = Features(dict(given), [{} for _ in range(rows)])
        values = self._stored(given, at, features, rows)
        features.columns.update((column, values[name]) for column, name in self._names.items())
        for view in self.on_demand:
            features.columns.update(self._computed(view, given, values, features.problems))
        return features

    def check(self) -> None:
        """Read the online store once, for a key that is not there.

        Raises:
            OnlineStoreUnavailable: It is gone or cannot be read, or has no row at all of a view.
        """
        if not self.refs:
            return
        keys = dict.fromkeys(key for view in self.views for key in view.keys)
        self.store.get_online_features(self.refs, entity_rows={key: [self.key_types[key]()] for key in keys})
        self._refuse_empty([view.name for view in self.views])

    def refuse_lost(self, features: Features) -> None:
        """Refuse what was read where a view gave nothing because it has no row at all, as `check` does.

        Raises:
            OnlineStoreUnavailable: The online store has no row at all of a view.
        """
        self._refuse_empty([v.name for v in self.views if features.absent[v.name, "missing"] == len(features.times)])

    def _refuse_empty(self, views: Iterable[str]) -> None:
        if empty := [view for view in views if not self._has_rows(view)]:
            raise OnlineStoreUnavailable(
                f"the online store has no row of {', '.join(empty)}; expected those that were published: restore it, "
                "or publish the features again"
            )

    def _has_rows(self, view: str) -> bool:
        online = self.store._get_provider().online_store
        # Of the stores, only ours can say so at once.
        has_rows = getattr(online, "has_rows", None)
        return has_rows is None or bool(has_rows(self.store.config, self.definitions[view]))

    def _stored(self, given: Columns, at: datetime, features: Features, rows: int) -> Columns:
        """Values of the stored features by `<view>__<feature>`, without the expired ones."""
        if not self.refs:
            return {}
        keys = dict.fromkeys(key for view in self.views for key in view.keys)
        response = self.store.get_online_features(
            self.refs,
            entity_rows={key: self._known(key, given[key]) for key in keys},
            full_feature_names=True,
        )
        values, moments = response.to_dict(), _moments(response)
        for row in range(rows):
            absent: dict[str, str] = {}
            for view in self.views:
                moment = None
                if all(given[key][row] is not None for key in view.keys):
                    # A row without one of the features (the view has grown since) has no time for it.
                    moment = max(moments[column][row] for column in view.columns) or None
                reason = _absent(moment, at, view.ttl)
                features.times[row][view.name] = None if reason else _iso(moment)
                if reason:
                    absent[view.name] = reason
                    features.absent[view.name, reason] += 1
                    for column in view.columns:
                        values[column][row] = None
                elif moment is not None and _time(moment) - at > NEWEST_ONLY:
                    features.problems[row] = (
                        f"at is {at.isoformat()}, and the newest row of view {view.name} is of {_iso(moment)}; "
                        "expected a later one: the online store only has the newest row of a key"
                    )
            if lacking := self._lacking(absent):
                features.lacking[row] = lacking
        return values

    def _lacking(self, absent: Mapping[str, str]) -> str | None:
        """What keeps an instance from a prediction, when these views have no fresh row for it."""
        required = [name for name in self.serving.required_views if name in absent]
        of_views = self._behind.values()
        fresh = sum(views.isdisjoint(absent) for views in of_views) / len(of_views)
        if not required and fresh >= self.serving.min_fresh:
            return None
        views = ", ".join(f"{name} {reason}" for name, reason in absent.items())
        if required:
            return f"no fresh row of required view {' and '.join(required)} ({views})"
        return f"{fresh:.0%} of its stored features are fresh; expected at least {self.serving.min_fresh:.0%} ({views})"

    def _known(self, key: str, values: list[Any]) -> list[Any]:
        """Feast refuses a null key; any other will do, as what is found for it is not used."""
        return [self.key_types[key]() if value is None else value for value in values]

    def _computed(
        self, view: "OnDemandFeatureView", given: Columns, values: Columns, problems: dict[int, str]
    ) -> Columns:
        """The features of an on-demand view; None for an instance that it cannot be computed for."""
        sources = {
            f"{projection.name}__{feature.name}"
            for projection in view.source_feature_view_projections.values()
            for feature in projection.features
        }
        inputs = {**given, **{name: values[name] for name in sources}}
        wanted = [column for column in self.columns if column in {feature.name for feature in view.features}]

        def compute(rows: list[int]) -> list[tuple[Any, ...]]:
            found = view.transform_dict({name: [column[row] for row in rows] for name, column in inputs.items()})
            return list(zip(*(found[column] for column in wanted), strict=True))

        found, failed = one_by_one(compute, list(range(len(next(iter(given.values()))))))
        for row, error in failed.items():
            problems[row] = (
                f"on-demand view {view.name} cannot be computed from these values ({type(error).__name__}: {error}); "
                f"check the request values {', '.join(sorted(self._given & _requested(view)))}"
            )
        nothing = (None,) * len(wanted)
        rows = [found.get(row, nothing) for row in range(len(next(iter(given.values()))))]
        return {column: [row[place] for row in rows] for place, column in enumerate(wanted)}


def _moments(response: "OnlineResponse") -> dict[str, list[int]]:
    """Event times by `<view>__<feature>`, in microseconds since 1970; zero where nothing was found.

    Feast's `to_dict` cuts them to whole seconds, by which a row would expire too early.
    """
    names = response.proto.metadata.feature_names.val
    return {
        name: [stamp.seconds * 1_000_000 + stamp.nanos // 1000 for stamp in vector.event_timestamps]
        for name, vector in zip(names, response.proto.results, strict=True)
    }


def _absent(moment: int | None, at: datetime, ttl: timedelta | None) -> str | None:
    """Why a row's values must not be used; None when they may. A ttl of zero means that they never expire."""
    if moment is None:
        return "missing"
    return "expired" if ttl and at - _time(moment) > ttl else None


def _time(moment: int) -> datetime:
    return _EPOCH + timedelta(microseconds=moment)


def _iso(moment: int | None) -> str | None:
    return None if moment is None else _time(moment).isoformat()


def _owners(store: "FeatureStore", spec: ModelSpec, columns: list[str]) -> dict[str, str]:
    """Which view of the service each column comes from, in the model's order."""
    views: dict[str, list[str]] = {}
    for projection in store.get_feature_service(spec.feature_service).feature_view_projections:
        for feature in projection.features:
            views.setdefault(feature.name, []).append(projection.name)
    for column in columns:
        found = views.get(column, [])
        if len(found) != 1:
            where = f"in views {' and '.join(found)}" if found else "in no view"
            raise ValueError(
                f"model {spec.name} reads {column!r}, which feature service {spec.feature_service} has {where}; "
                "expected exactly one view, an entity or a request value"
            )
    return {column: views[column][0] for column in columns}


def _behind(owners: Mapping[str, str], on_demand: Iterable["OnDemandFeatureView"]) -> dict[str, frozenset[str]]:
    """The stored views that each column needs; columns that are computed from the request alone need none."""
    computed = {
        view.name: frozenset(projection.name for projection in view.source_feature_view_projections.values())
        for view in on_demand
    }
    needed = {column: computed.get(view, frozenset((view,))) for column, view in owners.items()}
    return {column: views for column, views in needed.items() if views}


def _requested(view: "OnDemandFeatureView") -> set[str]:
    return {f.name for source in view.source_request_sources.values() for f in source.schema}


def _sources(view: "OnDemandFeatureView", spec: ModelSpec) -> list[tuple[str, str]]:
    """The stored features that an on-demand view is computed from."""
    lacking = _requested(view) - set(spec.request) - set(spec.entities)
    if lacking:
        raise ValueError(
            f"on-demand view {view.name} needs {', '.join(sorted(lacking))}; add them to `request` of model {spec.name}"
        )
    projections = view.source_feature_view_projections.values()
    return [(projection.name, feature.name) for projection in projections for feature in projection.features]


def _key_types(store: "FeatureStore", spec: ModelSpec) -> dict[str, type[str] | type[int]]:
    types = {entity.join_key: entity.value_type.name for entity in store.list_entities()}
    return {key: int if types.get(key) in ("INT32", "INT64") else str for key in spec.entities}


def _views(store: "FeatureStore", spec: ModelSpec, stored: Iterable[tuple[str, str]]) -> list[_View]:
    columns: dict[str, list[str]] = {}
    for name, feature in stored:
        columns.setdefault(name, []).append(f"{name}__{feature}")
    views = []
    for name, found in columns.items():
        view = store.get_feature_view(name)
        for key in view.join_keys:
            if key not in spec.entities:
                raise ValueError(f"view {name} is keyed by {key!r}; add it to `entities` of model {spec.name}")
        views.append(_View(name, tuple(view.join_keys), tuple(found), view.ttl))
    return views
