"""Every mistake of a person who adds a model is told in words, with the nearest valid name, before anything runs."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from shutil import rmtree
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pyarrow
import pytest

from ct_assets.core.gate import GatePolicy
from ct_assets.core.policy import RetrainPolicy
from ct_assets.core.spec import EstimatorSpec, EventSpec, LabelSpec, ModelSpec
from ct_assets.core.strategies import StrategySpec
from ct_assets.lake.contract import Domain, Source
from ct_assets.lake.lake import Lake
from ct_assets.lib.diagnosis import (
    CHECKS,
    DefinitionError,
    Deployment,
    Examined,
    Finding,
    examine,
    examine_deployment,
    refuse_mistakes,
)
from ct_assets.lib.diagnosis.declared import Declared, View
from ct_assets.lib.diagnosis.estimator import TRIAL, it_can_be_trained
from ct_assets.lib.features import FeatureSet, FeatureSql

MOMENT = "datetime64[us, UTC]"
SHOP = Domain("shop", date(2013, 1, 1), date(2013, 12, 31))
VISITS = Source(
    name="visits",
    schema=pa.DataFrameSchema(
        {
            "visit": pa.Column(object),
            "customer": pa.Column(object),
            "country": pa.Column(object, pa.Check.isin(["AT", "CH"])),
            "pages": pa.Column(int, pa.Check.in_range(1, 50)),
            "known_at": pa.Column(MOMENT),
        }
    ),
    key=("visit",),
    description="Visits of the shop.",
    owner="team:shop",
    domain=SHOP,
)
ORDERS = Source(
    name="orders",
    schema=pa.DataFrameSchema(
        {
            "visit": pa.Column(object),
            "customer": pa.Column(object),
            "amount": pa.Column(float),
            "ordered_at": pa.Column(MOMENT),
            "known_at": pa.Column(MOMENT),
        }
    ),
    key=("visit",),
    description="Orders.",
    owner="team:shop",
    domain=SHOP,
)
PAST_ORDERS = """
SELECT customer, known_at AS event_timestamp, known_at AS created,
  count(*) OVER (PARTITION BY customer ORDER BY known_at RANGE BETWEEN INTERVAL 2 DAYS PRECEDING AND CURRENT ROW)
    AS orders_2d
FROM orders QUALIFY known_at >= $start AND known_at < $end
"""
SETS = FeatureSet(
    ORDERS, {"past_orders": FeatureSql(PAST_ORDERS, ("customer", "known_at"))}, "team:shop", lookback_days=2
)
SPEC = ModelSpec(
    name="buys",
    owner="team:shop",
    description="Does the visitor buy?",
    events=EventSpec(
        source="visits",
        id_column="visit",
        sql="SELECT visit, known_at AS event_timestamp, customer, country, pages FROM visits",
    ),
    label=LabelSpec(
        source="orders",
        delay=timedelta(days=1),
        sql="SELECT visit, CAST(amount > 0 AS TINYINT) AS label, known_at FROM orders",
    ),
    entities=("customer",),
    request={"pages": "number", "country": "string"},
    feature_service="buys_v1",
    inputs={"orders_2d": "numeric", "pages": "numeric", "country": "categorical"},
    estimator=EstimatorSpec(path="estimators_of_doctor.logistic", params={"C": 0.5}),
    trusted_types=("numpy.dtype",),
    policy=RetrainPolicy(),
    gate=GatePolicy(floor=0.6),
)
DECLARED = Declared(
    {
        "past_orders": View(("customer",), {"orders_2d": "number"}),
        "calendar": View((), {"weekday": "number"}, on_demand=True, reads=("past_orders",), request=("pages",)),
    },
    {"buys_v1": {"past_orders": ("orders_2d",), "calendar": ("weekday",)}},
)


def model(**changes: Any) -> Examined:
    """The sound model with some fields of its spec changed; a dict changes fields of a part."""
    update = {
        name: getattr(SPEC, name).model_copy(update=value) if isinstance(value, dict) and name in PARTS else value
        for name, value in changes.items()
    }
    sources = {source.name: source for source in (VISITS, ORDERS)}
    return Examined(SPEC.model_copy(update=update), sources, [SETS], DECLARED)


PARTS = ("events", "label", "policy", "gate")


def with_view(sql: str = PAST_ORDERS, view: str = "past_orders", uses: tuple[str, ...] = ("customer",)) -> Examined:
    return replace(model(), feature_sets=[replace(SETS, views={view: FeatureSql(sql, uses)})])


def with_source(source: Source, **columns: Any) -> Examined:
    changed = replace(source, schema=source.schema.update_columns(columns))
    return replace(model(), sources=model().sources | {source.name: changed})


def with_declared(**changes: Any) -> Examined:
    view = replace(DECLARED.views["past_orders"], **changes)
    return replace(model(), declared=replace(DECLARED, views=DECLARED.views | {"past_orders": view}))


def live(examined: Examined) -> Examined:
    """The same in a group whose days go on."""
    domain = replace(SHOP, last_day=None)
    return replace(
        examined,
        sources={name: replace(source, domain=domain) for name, source in examined.sources.items()},
        feature_sets=[replace(f, source=replace(f.source, domain=domain)) for f in examined.feature_sets],
    )


def told(examined: Examined, *levels: str) -> list[str]:
    """What is found, without a trial of the estimator that a test of its own has tried."""
    left = {name: check for name, check in CHECKS.items() if name != TRIAL or examined.spec.estimator != SPEC.estimator}
    return [str(finding) for finding in examine(examined, left) if finding.level in (levels or ("error",))]


def events(select: str) -> Examined:
    return model(events={"sql": f"SELECT {select} FROM visits"})


def labels(select: str) -> Examined:
    return model(label={"sql": f"SELECT {select} FROM orders"})


def test_a_sound_model_has_no_mistake() -> None:
    found = examine(model())
    assert [f for f in found if f.level in ("error", "warning")] == []
    assert {f.check for f in found if f.level == "ok"} == CHECKS.keys() - {
        "arrivals",
        "rows ahead of time",
        "volume at hand",
        "events in time",
        "windows",
    }
    refuse_mistakes(model(), [])


STRATEGIES: dict[str, dict[str, Any]] = {
    "window": {"kind": "window", "window": "1 hour"},
    "recent": {"sampling": "recent", "rows": 100},
    "time decay": {"sampling": "time_decay", "half_life": "1 day"},
    "importance": {"sampling": "importance", "current": "1 hour"},
}


@pytest.mark.parametrize("case", STRATEGIES)
def test_a_strategy_that_chooses_by_time_and_weight_has_all_it_needs_in_the_trial(case: str) -> None:
    sql = f"SELECT *, 1.5 AS worth FROM ({SPEC.events.sql})"
    changed = model(strategy=StrategySpec(**STRATEGIES[case]), weight="worth", events={"sql": sql})
    assert list(it_can_be_trained(changed)) == []
    assert told(changed) == []


MISTAKES: dict[str, tuple[Callable[[], Examined], str]] = {
    "a weight that the events do not have": (
        lambda: model(weight="worth"),
        "events.sql: yields no column worth (weight)",
    ),
    "an unknown source of events": (
        lambda: model(events={"source": "visit"}),
        "events.source: unknown source 'visit', did you mean 'visits'?",
    ),
    "an unknown source of labels": (
        lambda: model(label={"source": "order"}),
        "label.source: unknown source 'order', did you mean 'orders'?",
    ),
    "sources of two domains": (
        lambda: replace(model(), sources={"visits": replace(VISITS, domain=Domain("web")), "orders": ORDERS}),
        "reads visits of web, orders of shop; expected daily sources of one domain",
    ),
    "a table that is none": (
        lambda: model(events={"sql": "SELECT visit FROM visit"}),
        "events.sql: unknown source 'visit', did you mean 'visits'?",
    ),
    "a table that these rows do not see": (
        lambda: model(events={"sql": "SELECT visit FROM visits JOIN orders USING (visit)"}),
        "reads 'orders', but this query sees the rows of visits only",
    ),
    "a column that is none": (
        lambda: events("visit, known_at AS event_timestamp, custommer AS customer, country, pages"),
        "unknown column 'custommer', did you mean 'customer'?",
    ),
    "a column of an alias that is none": (
        lambda: model(events={"sql": "SELECT v.visits FROM visits v"}),
        "unknown column 'visits', did you mean 'visit'?",
    ),
    "SQL that is none": (lambda: model(events={"sql": "SELEC visit FROM visits"}), "syntax error at or near"),
    "SQL with a semicolon": (lambda: model(events={"sql": SPEC.events.sql + ";"}), 'syntax error at or near ";"'),
    "events without their id": (
        lambda: events("visit AS visit_id, known_at AS event_timestamp, customer, country, pages"),
        "yields no column visit (events.id_column); did you mean 'visit_id'?",
    ),
    "events without a moment": (
        lambda: events("visit, known_at, customer, country, pages"),
        "yields no column event_timestamp (the moment of prediction)",
    ),
    "events at a moment without a zone": (
        lambda: events("visit, CAST(known_at AS TIMESTAMP) AS event_timestamp, customer, country, pages"),
        "column event_timestamp is timestamp[us]; expected a moment with a time zone (TIMESTAMPTZ)",
    ),
    "events on a day instead of at a moment": (
        lambda: events("visit, CAST(known_at AS DATE) AS event_timestamp, customer, country, pages"),
        "column event_timestamp is date32[day]",
    ),
    "events without an entity": (
        lambda: events("visit, known_at AS event_timestamp, customer AS customers, country, pages"),
        "yields no column customer (entities); did you mean 'customers'?",
    ),
    "a request value of another type": (
        lambda: events("visit, known_at AS event_timestamp, customer, country, CAST(pages AS TEXT) AS pages"),
        "column pages is string, and `request` says number; expected a number",
    ),
    "labels without a moment": (lambda: labels("visit, 1 AS label"), "yields no column known_at"),
    "labels known at a moment without a zone": (
        lambda: labels("visit, 1 AS label, CAST(known_at AS TIMESTAMP) AS known_at"),
        "label.sql: column known_at is timestamp[us]; expected a moment with a time zone",
    ),
    "labels that are words": (
        lambda: labels("visit, 'yes' AS label, known_at"),
        "column label is string, and the task is binary; expected 0 or 1",
    ),
    "features of a column that is none": (
        lambda: with_view(PAST_ORDERS.replace("PARTITION BY customer", "PARTITION BY costumer")),
        "FeatureSql 'past_orders': unknown column 'costumer', did you mean 'customer'?",
    ),
    "features without a join key": (
        lambda: with_view(PAST_ORDERS.replace("SELECT customer,", "SELECT")),
        "event_timestamp comes first, so that there is no join key",
    ),
    "features without their created column": (
        lambda: with_view(PAST_ORDERS.replace("AS created", "AS creatd")),
        "no column created; yields customer, event_timestamp, creatd, orders_2d",
    ),
    "features for no moments": (
        lambda: with_view(PAST_ORDERS.partition("QUALIFY")[0]),
        "does not use each of $start and $end, or names them otherwise",
    ),
    "lineage from a column that is none": (
        lambda: with_view(uses=("custmer",)),
        "FeatureSql 'past_orders': uses: unknown column 'custmer', did you mean 'customer'?",
    ),
    "an unknown feature service": (
        lambda: model(feature_service="buys_v2"),
        "feature_service: unknown feature service 'buys_v2', did you mean 'buys_v1'?",
    ),
    "a view that nothing computes": (
        lambda: replace(model(), feature_sets=[]),
        "view 'past_orders' of service 'buys_v1' is computed by no FeatureSet of the model",
    ),
    "a view that Feast does not know": (
        lambda: with_view(view="past_order"),
        "unknown feature view 'past_order', did you mean 'past_orders'?",
    ),
    "a feature that the SQL calls otherwise": (
        lambda: with_declared(features={"orders_2days": "number"}),
        "yields 'orders_2d', which Feast does not declare: unknown feature 'orders_2d', did you mean 'orders_2days'?",
    ),
    "a feature of another type": (
        lambda: with_declared(features={"orders_2d": "text"}),
        "column orders_2d is int64; expected a text, as Feast declares",
    ),
    "another join key than Feast's": (
        lambda: with_declared(keys=("client",)),
        "join key customer; expected client, as Feast declares",
    ),
    "a view without a created column": (
        lambda: with_declared(created=""),
        "no created_timestamp_column; expected created; without it, training would see rows before they were known",
    ),
    "an input that nothing gives": (
        lambda: model(inputs={"order_2d": "numeric"}),
        "inputs.order_2d: unknown input 'order_2d', did you mean 'orders_2d'?",
    ),
    "a numeric input that holds text": (
        lambda: model(inputs={"country": "numeric"}),
        "country is numeric, and holds text",
    ),
    "an entity too few": (
        lambda: model(entities=()),
        "entities: no 'customer', the join key of view 'past_orders'",
    ),
    "a request value too few": (
        lambda: model(request={}, inputs={"orders_2d": "numeric"}),
        "request: no 'pages', which on-demand view 'calendar' reads",
    ),
    "features that say they are known before they are": (
        lambda: with_view(PAST_ORDERS.replace("known_at AS created", "ordered_at AS created")),
        "are said to be known by",
    ),
    "features that count what comes later": (
        lambda: with_view(PAST_ORDERS.replace("CURRENT ROW", "INTERVAL 1 DAY FOLLOWING")),
        "derive `created` from the known_at of the newest row that the value is made of",
    ),
    "features without a known moment": (
        lambda: with_view(PAST_ORDERS.replace("known_at AS created", "CAST(NULL AS TIMESTAMPTZ) AS created")),
        "60 of 60 made-up rows have no `created`",
    ),
    "labels that say they are known before they are": (
        lambda: labels("visit, 1 AS label, ordered_at AS known_at"),
        "derive `known_at` from that of the row that told the label",
    ),
    "an estimator in no module": (
        lambda: model(estimator=EstimatorSpec(path="sklearn.linear_modle.LogisticRegression")),
        "there is no module 'sklearn.linear_modle': unknown module 'linear_modle', did you mean 'linear_model'?",
    ),
    "an estimator in no package": (
        lambda: model(estimator=EstimatorSpec(path="skleern.linear_model.LogisticRegression")),
        "there is no module 'skleern'; install it, or mend the path",
    ),
    "an estimator by a wrong name": (
        lambda: model(estimator=EstimatorSpec(path="sklearn.linear_model.LogisticRegresion")),
        "unknown name in sklearn.linear_model 'LogisticRegresion', did you mean 'LogisticRegression'?",
    ),
    "a parameter that is none": (
        lambda: model(estimator=EstimatorSpec(path="sklearn.linear_model.LogisticRegression", params={"max_iters": 9})),
        "unknown parameter 'max_iters', did you mean 'max_iter'?",
    ),
    "a parameter that a factory hands on": (
        lambda: model(estimator=EstimatorSpec(path=SPEC.estimator.path, params={"max_itr": 9})),
        "got an unexpected keyword argument 'max_itr'",
    ),
    "a parameter of a wrong value": (
        lambda: model(estimator=EstimatorSpec(path=SPEC.estimator.path, params={"C": -1})),
        "The 'C' parameter of LogisticRegression must be",
    ),
    "an estimator without probabilities": (
        lambda: model(estimator=EstimatorSpec(path="sklearn.linear_model.LinearRegression")),
        "LinearRegression has no predict_proba; expected fit and predict_proba, as the task is binary",
    ),
    "an estimator that cannot read text": (
        lambda: model(estimator=EstimatorSpec(path="sklearn.linear_model.LogisticRegression")),
        "training on made-up rows failed: could not convert string to float",
    ),
    "an estimator that cannot be stored safely": (
        lambda: model(estimator=EstimatorSpec(path="estimators_of_doctor.Homemade")),
        "the model contains estimators_of_doctor.Homemade, which nobody has reviewed",
    ),
    "an estimator that is never the same": (
        lambda: model(
            estimator=EstimatorSpec(path="estimators_of_doctor.Moody"),
            trusted_types=("estimators_of_doctor.Moody",),
        ),
        "two trainings on the same rows differ; expected the same bytes",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_words(mistake: str) -> None:
    make, words = MISTAKES[mistake]
    found = told(make())
    assert any(words in line for line in found), "\n".join(found)
    assert not any("this check broke" in line for line in found), "\n".join(found)


WARNINGS: dict[str, tuple[Callable[[], Examined], str]] = {
    "a rest longer than the schedule": (
        lambda: model(policy={"schedule_days": 7, "cooldown_days": 14}),
        "14 days of rest, and a schedule of 7",
    ),
    "no trigger at all": (lambda: model(policy={"schedule_days": None}), "no trigger but the first training"),
    "fewer labels than the gate wants": (
        lambda: model(policy={"first_training_rows": 500}),
        "500 labels for the first training, of which the gate wants 1000",
    ),
    "a gate without a floor": (lambda: model(gate={"floor": None}), "no floor, and the baseline need not be beaten"),
    "labels that come after the window": (
        lambda: model(
            label={"delay": timedelta(days=30)}, policy={"performance_drop": 0.1, "performance_window_days": 7}
        ),
        "labels take 30 days, 0:00:00, longer than the window of 7 days",
    ),
    "labels that take longer than a live group may be quiet": (
        lambda: live(model(label={"delay": timedelta(days=90)})),
        "labels take 90 days, 0:00:00, longer than the quiet_days of group shop (60)",
    ),
    "another metric watched than gated": (
        lambda: model(policy={"performance_drop": 0.1, "performance_metric": "logloss"}),
        "logloss, while the gate judges by auc",
    ),
    "an entity that nothing reads": (
        lambda: model(entities=("customer", "visit")),
        "'visit' is no join key of the service's views (customer), and no input",
    ),
    "an estimator that breaks on a missing value": (
        lambda: model(
            inputs={"orders_2d": "numeric"}, estimator=EstimatorSpec(path="sklearn.linear_model.LogisticRegression")
        ),
        "it cannot do without a value",
    ),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_what_is_allowed_and_unwise_is_a_warning(case: str) -> None:
    make, words = WARNINGS[case]
    found = told(make(), "warning")
    assert any(words in line for line in found), "\n".join(found)
    assert told(make()) == []


AT_LOAD = (
    *("an unknown source of events", "a column that is none", "labels known at a moment without a zone"),
    *("features of a column that is none", "an input that nothing gives", "events without an entity"),
    *("an estimator in no module", "an estimator by a wrong name"),
)


@pytest.mark.parametrize("mistake", AT_LOAD)
def test_what_can_be_told_at_once_stops_the_definitions(mistake: str) -> None:
    make, words = MISTAKES[mistake]
    with pytest.raises(DefinitionError) as error:
        refuse_mistakes(make(), [])
    assert words in str(error.value)
    assert "model 'buys' has" in str(error.value)


def test_an_estimator_of_an_editable_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "of_a_team"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text("class Trees: ...\n")

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            return PathFinder.find_spec(name, [str(tmp_path)]) if name == "of_a_team" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    refuse_mistakes(model(estimator=EstimatorSpec(path="of_a_team.models.Trees")), [])
    with pytest.raises(DefinitionError, match="unknown name in of_a_team.models 'Tree', did you mean 'Trees'"):
        refuse_mistakes(model(estimator=EstimatorSpec(path="of_a_team.models.Tree")), [])
    with pytest.raises(DefinitionError, match="'.Trees' has no module"):
        refuse_mistakes(model(estimator=EstimatorSpec(path=".Trees")), [])


SCHEMAS = {
    "a name": ('schema=[Field(name="weekday", dtype=Int64)]', "weekday", "weekdays"),
    "a name with a gap": ('schema=[Field(name=f"mean_{hours}h", dtype=Int64)]', "mean_3h", "mean_3d"),
    "names made elsewhere": ("schema=FIELDS", "anything", None),
    "fields made elsewhere": ("schema=[field(3)]", "anything", None),
    "no Python": ("(", "anything", None),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_an_input_that_an_on_demand_view_can_give_is_let_through_at_load(tmp_path: Path, case: str) -> None:
    schema, given, unknown = SCHEMAS[case]
    file = tmp_path / "views.py"
    file.write_text(f'TEXT = "weekdays mean_3d"\n\n\n@on_demand_feature_view({schema})\ndef clock(inputs): ...\n')
    refuse_mistakes(model(inputs={given: "numeric"}), [file])
    if unknown:
        with pytest.raises(DefinitionError, match=f"unknown input {unknown!r}"):
            refuse_mistakes(model(inputs={unknown: "numeric"}), [file])


def test_views_of_another_model_let_no_input_through_at_load(tmp_path: Path) -> None:
    def written(folder: str, text: str) -> Path:
        path = tmp_path / folder / "feature_views.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    other = written("other", "@on_demand_feature_view(schema=FIELDS)\ndef clock(inputs): ...\n")
    guess = model(inputs={"anything": "numeric"}, feature_service="buys_v1")
    with pytest.raises(DefinitionError, match="unknown input 'anything'"):
        refuse_mistakes(guess, [other, written("mine", 'FeatureService(name="buys_v1")')])
    for mine in ('FeatureService(name=f"{MODEL}_v1")', 'from other.feature_views import clock\nNAME = "buys_v1"'):
        refuse_mistakes(guess, [other, written("mine", mine)])


def test_several_mistakes_are_told_at_once() -> None:
    broken = replace(
        model(entities=(), feature_service="buys", inputs={"nothing": "numeric"}, gate={"floor": None}),
        feature_sets=[],
    )
    checks = {finding.check for finding in examine(broken) if finding.level in ("error", "warning")}
    assert {"feature service", "policy and gate"} <= checks
    skipped = {finding.check for finding in examine(broken) if finding.level == "skipped"}
    assert {"feature views", "inputs", "entities"} <= skipped


def test_a_check_that_breaks_is_told_and_hides_no_other() -> None:
    def breaks(_model: Examined) -> Any:
        raise RuntimeError("out of ideas")

    found = examine(model(gate={"floor": None}), {"broken": breaks, **CHECKS})
    assert found[0] == Finding(
        "error",
        "broken",
        "broken",
        "this check broke: RuntimeError: out of ideas",
        "a check that ends",
        "report it with the model's files",
        "buys",
    )
    assert "policy and gate" in {finding.check for finding in found if finding.level == "warning"}


def rows_of_the_view(home: Path, ahead: int) -> None:
    known = pd.Timestamp("2024-01-01T12:00Z").as_unit("us")
    moments = [known + pd.Timedelta(days=1 if row < ahead else -1) for row in range(10)]
    frame = pd.DataFrame({"customer": "c", "event_timestamp": moments, "created": known, "orders_2d": 1})
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    Lake(home).dataset("features/past_orders", "event_timestamp").write("2024-01-01", table)


@pytest.mark.parametrize(("ahead", "words"), [(0, []), (3, ["3 of the newest 10 rows have an event_timestamp after"])])
def test_rows_that_lie_ahead_of_their_time_are_a_warning(tmp_path: Path, ahead: int, words: list[str]) -> None:
    rows_of_the_view(tmp_path, ahead)
    found = told(replace(model(), home=tmp_path), "warning")
    assert [word in line for word, line in zip(words, found, strict=True)] == [True] * len(words)


BOUGHT = """
SELECT e.visit, CAST(count(o.amount) > 0 AS TINYINT) AS label
FROM events e LEFT JOIN orders o ON o.customer = e.customer AND {bounds} GROUP BY ALL
"""


@pytest.mark.parametrize(
    ("bounds", "sound"),
    [
        ("o.known_at >= e.event_timestamp AND o.known_at < e.horizon_ends", True),
        ("o.ordered_at >= e.event_timestamp AND o.ordered_at < e.horizon_ends", True),
        ("o.known_at >= e.event_timestamp", False),
        ("o.known_at >= e.event_timestamp AND o.known_at < e.horizon_ends + INTERVAL 1 DAY", False),
    ],
)
def test_a_label_that_looks_beyond_its_horizon_is_told(bounds: str, sound: bool) -> None:
    label = LabelSpec(source="orders", horizon="7 days", sql=BOUGHT.format(bounds=bounds))
    found = [
        line for line in told(replace(model(), spec=SPEC.model_copy(update={"label": label}))) if "horizon" in line
    ]
    assert (not found) is sound
    if not sound:
        assert "change by rows from after `horizon_ends`" in found[0]


@pytest.mark.parametrize(("name", "sound"), [("num_leaves", True), ("num_leafs", False), ("eta", True)])
def test_a_parameter_that_lightgbm_does_not_know_is_told(name: str, sound: bool) -> None:
    trees = {name: 0.1 if name == "eta" else 7, "n_estimators": 3, "verbose": -1}
    nested = {"categories": ["country"], "estimator": {"path": "lightgbm.LGBMClassifier", "params": trees}}
    found = told(model(estimator=EstimatorSpec(path="ct_assets.core.estimators.numbered", params=nested)))
    told_so = [line for line in found if "LightGBM knows no parameter 'num_leafs', and ignores it" in line]
    assert (found == []) if sound else len(told_so) == 1


def test_the_path_of_an_estimator_within_another_is_looked_for(tmp_path: Path) -> None:
    nested = {"categories": ["country"], "estimator": {"path": "lightgbm.LGBMClasifier", "params": {}}}
    wrong = model(estimator=EstimatorSpec(path="ct_assets.core.estimators.numbered", params=nested))
    with pytest.raises(DefinitionError, match=r"estimator\.params\.estimator\.path: unknown name.*'LGBMClassifier'"):
        refuse_mistakes(wrong, [])


CALIBRATION = "sklearn.calibration.CalibratedClassifierCV"
HISTOGRAMS = "sklearn.ensemble.HistGradientBoostingClassifier"


@pytest.mark.parametrize(
    ("path", "params", "field"),
    [
        (HISTOGRAMS, {"early_stopping": True}, "estimator: early_stopping"),
        (CALIBRATION, {"estimator": {"path": HISTOGRAMS}}, "estimator: cv"),
        (
            "sklearn.ensemble.VotingClassifier",
            {"estimators": [["search", {"path": "sklearn.linear_model.LogisticRegressionCV", "params": {"cv": 4}}]]},
            r"estimator\.params\.estimators\.0\.1: cv: LogisticRegressionCV",
        ),
    ],
)
def test_a_split_within_a_training_that_is_not_in_time_order_stops_the_definitions(
    path: str, params: dict[str, Any], field: str
) -> None:
    wrong = model(estimator=EstimatorSpec(path=path, params=params))
    with pytest.raises(DefinitionError, match=rf"{field}.*(early_stopped|time_ordered)"):
        refuse_mistakes(wrong, [])
    assert [line for line in told(wrong) if "time_ordered" in line or "early_stopped" in line]


def test_splits_within_a_training_that_are_in_time_order_can_be_trained() -> None:
    boosted = {
        "path": "ct_assets.core.estimators.early_stopped",
        "params": {"estimator": {"path": HISTOGRAMS, "params": {"max_iter": 5, "min_samples_leaf": 5}}},
    }
    pipeline = {
        "path": "ct_assets.core.estimators.numbered",
        "params": {"categories": ["country"], "estimator": boosted},
    }
    cv = {"path": "ct_assets.core.estimators.time_ordered", "params": {"share": 0.3}}
    trees = {"path": HISTOGRAMS, "params": {"max_iter": 5, "min_samples_leaf": 5}}
    numbered = {**pipeline, "params": {**pipeline["params"], "estimator": trees}}
    calibrated = {"path": CALIBRATION, "params": {"estimator": numbered, "cv": cv}}
    assert told(model(estimator=EstimatorSpec.model_validate(calibrated))) == []
    twice = {"path": CALIBRATION, "params": {"estimator": pipeline, "cv": cv}}
    assert "not a sample of another one" in "".join(told(model(estimator=EstimatorSpec.model_validate(twice))))
    assert told(model(estimator=EstimatorSpec.model_validate(pipeline))) == []


@pytest.mark.parametrize(
    ("declared", "stopped"), [("'buys_v2'", True), ("name='buys_v1'", False), ("f'buys_v{1}'", False), ("", False)]
)
def test_a_service_that_no_file_names_stops_the_definitions(declared: str, stopped: bool, tmp_path: Path) -> None:
    file = tmp_path / "feature_views.py"
    file.write_text(f"service = FeatureService({declared}, features=[])" if declared else "other = 1")
    if stopped:
        with pytest.raises(DefinitionError, match="feature_service: unknown feature service 'buys_v1'"):
            refuse_mistakes(model(), [file])
    else:
        refuse_mistakes(model(), [file])


def test_labels_that_fan_out_are_told() -> None:
    sql = "SELECT visit, l.label, known_at FROM orders, (VALUES (0), (1)) l(label)"
    (found,) = told(model(label={"sql": sql}))
    assert "made-up events get several labels at one moment" in found
    assert told(model(label={"sql": "SELECT visit, 1 AS label, known_at FROM orders, range(2)"})) == []


def test_an_entity_that_is_text_is_no_number() -> None:
    inputs = SPEC.inputs | {"customer": "numeric"}
    (found,) = told(model(inputs=inputs))
    assert "inputs.customer: customer is numeric, and the events' SQL yields text" in found
    with pytest.raises(DefinitionError, match="call it categorical"):
        refuse_mistakes(model(inputs=inputs), [])


def arrived(home: Path, days: int = 6) -> None:
    """Visits and orders of some days, an hour apart, the last of which was scored."""
    first = pd.Timestamp("2013-01-01", tz="UTC").as_unit("us")
    for number in range(days):
        known = [first + pd.Timedelta(days=number, hours=hour) for hour in range(24)]
        rows = pd.DataFrame({"visit": [f"v{number}-{h}" for h in range(24)], "customer": "c", "known_at": known})
        for name, more in (
            ("visits", {"country": "AT", "pages": range(1, 25)}),
            ("orders", {"amount": 1.0, "ordered_at": known}),
            ("buys/scored", {"event_timestamp": known}),
        ):
            table = pyarrow.Table.from_pandas(rows.assign(**more), preserve_index=False)
            Lake(home).dataset(name).write(f"2013-01-0{number + 1}", table)


def of_rows(examined: Examined, home: Path, *levels: str) -> list[str]:
    arrived(home)
    wanted = {name: check for name, check in CHECKS.items() if name in ("events in time", "windows")}
    found = examine(replace(examined, home=home), wanted)
    return [str(finding) for finding in found if finding.level in levels]


def test_rows_that_have_arrived_show_a_sound_model(tmp_path: Path) -> None:
    assert len(of_rows(model(), tmp_path, "ok")) == 2


def test_rules_that_the_arrived_rows_are_too_few_for_are_told_before_anything_runs(tmp_path: Path) -> None:
    wanted = {name: check for name, check in CHECKS.items() if name == "volume at hand"}
    few = model(policy={"first_training_rows": 6000}, gate={"min_rows": 1000})
    assert [f.level for f in examine(replace(few, home=tmp_path), wanted)] == ["skipped"]
    arrived(tmp_path)
    for scored in (True, False):  # counted on what was scored, or, before that, on the events that have arrived
        if not scored:
            rmtree(tmp_path / "lake" / "buys")
        found = [f for f in examine(replace(few, home=tmp_path), wanted) if "evaluation_days" in f.where]
        told = " ".join(map(str, found))
        assert [f.level for f in found] == ["warning"]
        assert "7 days bring about 168 labelled events (24 a day), and the gate wants 1,000" in told
        assert "counted on 144 events" in told
        assert "evaluation_days: 42, or gate.min_rows: 168" in told


def test_columns_of_events_that_look_ahead_are_told() -> None:
    ahead = "visit, known_at AS event_timestamp, customer, country, max(pages) OVER (PARTITION BY customer) AS pages"
    before = ahead.replace("customer)", "customer ORDER BY known_at)")
    for select, told_of in ((ahead, True), (before, False)):
        found = [line for line in told(events(select), "warning") if "change by rows that became known later" in line]
        assert bool(found) is told_of, found


def test_a_day_that_a_source_left_out_is_told(tmp_path: Path) -> None:
    wanted = {name: check for name, check in CHECKS.items() if name == "arrivals"}
    arrived(tmp_path)
    assert [finding.level for finding in examine(replace(model(), home=tmp_path), wanted)] == ["ok"]
    folder = tmp_path / "lake" / "orders" / "manifest.json"
    content = json.loads(folder.read_text())
    # The newest may be on its way; the second and fourth were left out.
    kept = [file for file in content["files"] if file["partition"][-1] in "135"]
    folder.write_text(json.dumps(content | {"files": kept}))
    (found,) = examine(replace(model(), home=tmp_path), wanted)
    assert (found.level, found.where) == ("warning", "source 'orders'")
    assert "nothing arrived for 2 of 6 days, such as 2013-01-02" in str(found)


@pytest.mark.parametrize(("hours", "level"), [(6, "error"), (0, "ok")])
def test_events_that_are_predicted_before_they_were_known_are_told(hours: int, level: str, tmp_path: Path) -> None:
    select = f"visit, known_at - INTERVAL {hours} HOURS AS event_timestamp, customer, country, pages"
    found = of_rows(events(select), tmp_path, level)
    assert any("events" in line for line in found)
    if hours:
        assert "of the 18 events of 2013-01-06 need rows that became known after their event_timestamp" in found[0]


@pytest.mark.parametrize(("days", "sound"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_window_that_reaches_further_than_is_read_is_told(days: int, sound: bool, tmp_path: Path) -> None:
    found = of_rows(replace(model(), feature_sets=[replace(SETS, lookback_days=days)]), tmp_path, "error")
    assert (not found) is sound
    if not sound:
        assert f"rows of 2013-01-06 are others with lookback_days={3 * days + 60} than with {days}" in found[0]


def deployment(home: Path) -> Deployment:
    now = datetime(2024, 1, 2, tzinfo=UTC)
    return Deployment(home, {s.name: s for s in (VISITS, ORDERS)}, f"sqlite:///{home}/mlflow/mlflow.db", lambda: now)


def problems(subject: Deployment) -> list[str]:
    return [str(f) for f in examine_deployment(subject) if f.level in ("warning", "error")]


def test_an_empty_home_is_fine(tmp_path: Path) -> None:
    assert problems(deployment(tmp_path / "home")) == []


def test_files_that_nothing_takes_in_are_told(tmp_path: Path) -> None:
    for name in ("visit/2013-01-01/a.parquet", "orders/a.parquet", "lost.parquet", "visits/2013-01-01/b.parquet"):
        (tmp_path / "landing" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "landing" / name).touch()
    (tmp_path / "landing" / "visits" / "2013-01-01" / "link.parquet").symlink_to(tmp_path / "nothing")
    found = problems(deployment(tmp_path))
    assert len(found) == 4
    assert "landing/lost.parquet: a file in no source's folder" in found[0]
    assert "landing/orders/a.parquet: expected landing/orders/<day>/<file> with a day from 2013-01-01" in found[1]
    assert "landing/visit: nothing takes it in: unknown source 'visit', did you mean 'visits'?" in found[2]
    assert "landing/visits/2013-01-01/link.parquet: it is no file" in found[3]


def test_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"this is no database, whatever its name says" * 9)
    assert any("mlflow.db: file is not a database" in line for line in problems(deployment(tmp_path)))


def test_a_tracking_server_that_does_not_answer_is_told(tmp_path: Path) -> None:
    found = problems(replace(deployment(tmp_path), tracking_uri="http://127.0.0.1:9"))
    assert [line for line in found if "http://127.0.0.1:9: no answer" in line]


def test_a_clock_that_went_back_is_told(tmp_path: Path) -> None:
    from ct_assets.core.ledger import REQUEST, Ledger

    later = datetime(2024, 1, 3, tzinfo=UTC)
    ledger = Ledger(tmp_path / "ledger" / "decisions.jsonl", lambda: later)
    ledger.append(REQUEST, "buys", later, {"reason": "test"})
    (found,) = problems(deployment(tmp_path))
    assert "system clock: 2024-01-02 00:00:00 UTC, and a decision was recorded at 2024-01-03 00:00:00" in found


def test_a_ledger_that_was_changed_is_told(tmp_path: Path) -> None:
    from ct_assets.core.ledger import REQUEST, Ledger

    path = tmp_path / "ledger" / "decisions.jsonl"
    Ledger(path).append(REQUEST, "buys", datetime(2024, 1, 1, tzinfo=UTC), {"reason": "test"})
    path.write_text(path.read_text().replace("test", "fake"))
    (found,) = problems(deployment(tmp_path))
    assert "restore the ledger from a copy" in found


def test_what_an_ended_process_left_is_told(tmp_path: Path) -> None:
    import os

    left = tmp_path / "releases" / "buys" / ".1.json.0a1b2c3d"
    left.parent.mkdir(parents=True)
    left.touch()
    assert problems(deployment(tmp_path)) == []
    os.utime(left, (0, 0))
    (found,) = problems(deployment(tmp_path))
    assert "releases/buys/.1.json.0a1b2c3d: half written" in found


def test_definitions_that_are_not_applied_are_told(tmp_path: Path) -> None:
    (tmp_path / "feast").mkdir()
    (tmp_path / "feast" / "applied").write_text("of another day")
    (found,) = problems(deployment(tmp_path))
    assert "the registry holds other definitions than the code" in found
