"""Twelve recorded days: online features are recomputed without a difference; a day without events has its types."""

import dagster as dg

from ct_assets.core.ledger import Ledger
from ct_assets.core.segments import Line
from ct_assets.defs.models.flight_delay.spec import SPEC
from ct_assets.defs.sources.contracts import SOURCES
from ct_assets.lake.examples import read_events, with_features
from ct_assets.lake.releases import Releases
from ct_assets.lib.parity import RECORDED_EVENTS, compare_day
from ct_assets.lib.parity_check import NOTHING, ONLINE_MATCHES_OFFLINE
from ct_assets.lib.partitions import end_of, start_of
from ct_assets.lib.scoring import score_day
from ct_assets.serving.features import FeatureReader


def test_clean_days_have_no_difference(world):
    reader = FeatureReader(world.store, SPEC)
    for day in range(2, 13):
        partition = f"2013-01-{day:02}"
        events = read_events(world.lake, SPEC, start_of(partition), end_of(partition)).to_pandas()
        joined = with_features(world.store, SPEC, events)
        compared = compare_day(world.lake, reader, SPEC, SOURCES[0].domain, partition, joined)
        assert [str(each) for each in compared if each.unequal] == []
        # The 7th is a Monday.
        rows = {each.rows for each in compared if each.how == "recomputed"}
        assert rows == ({RECORDED_EVENTS} if day == 7 else set())
        held = {each.feature.partition(":")[0] for each in compared if each.how == "held"}
        # Only of the newest partitions the store still has what it had then; the planes have no partitions.
        assert held == ({"plane"} if day == 7 else set())


def test_every_scored_day_was_checked(world):
    key = dg.AssetCheckKey(dg.AssetKey([SPEC.name, "scored"]), ONLINE_MATCHES_OFFLINE)
    history = world.instance.event_log_storage.get_asset_check_execution_history(key, limit=50)
    events = [record.event.dagster_event for record in history]
    results = [
        e.asset_check_evaluation_data for e in events if e.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ]
    assert len(results) >= 12
    assert [result.description for result in results if not result.passed] == []
    compared = [r.metadata for r in results if "rows_recomputed" in r.metadata]
    assert sum(result.description == NOTHING for result in results) == len(results) - len(compared)
    assert [(f["rows_recomputed"].value, f["largest_share_unequal"].value) for f in compared] == [
        (RECORDED_EVENTS, 0.0)
    ]


def test_a_day_without_events_is_scored_with_the_types_of_any_other(world):
    nothing = SPEC.events.model_copy(update={"sql": f"SELECT * FROM ({SPEC.events.sql}) WHERE carrier = 'nobody'"})
    releases = Releases(world.home, Line(SPEC.name), Ledger(world.home / "ledger" / "decisions.jsonl"))
    tables = [
        score_day(world.lake, world.store, releases, spec, "2013-01-05")[0]
        for spec in (SPEC, SPEC.model_copy(update={"events": nothing}))
    ]
    assert tables[0].num_rows > tables[1].num_rows == 0
    assert tables[0].schema == tables[1].schema
