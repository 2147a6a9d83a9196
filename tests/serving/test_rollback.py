"""Rollback moves the champion back to a release that may serve, and records why."""

import pandas as pd
import pytest
from world import AT, changed, spec_named

from ct_assets.core.artifact import ArtifactError
from ct_assets.core.segments import Line
from ct_assets.lib.promotion import rollback
from ct_assets.resources.registry import CHAMPION

NOW = pd.Timestamp(AT)


@pytest.fixture
def served(world, request):
    """A model of its own with three releases, the third of which serves."""
    spec = spec_named(f"rolled_{request.node.originalname.removeprefix('test_')}"[:40])
    return spec, [world.promote(spec, n) for n in (5, 6, 7)]


def back(world, spec, reason="too many false alarms", version=None):
    return rollback(world.lake, world.registry, Line(spec.name), reason, version).version


def alias(world, spec):
    return world.registry.get(spec.name, CHAMPION).version


def test_it_returns_to_the_release_before_and_records_the_reason(world, served):
    spec, _ = served
    assert back(world, spec) == "2"
    assert alias(world, spec) == "2"
    record = world.ledger.newest(["rollback"], spec.name)
    assert record.evidence == {"version": "2", "previous": "3", "reason": "too many false alarms"}


def test_a_second_one_goes_one_further_back(world, served):
    spec, _ = served
    assert [back(world, spec), back(world, spec)] == ["2", "1"]
    with pytest.raises(ValueError, match="version 1 is the first release"):
        back(world, spec)


def test_any_release_can_be_named(world, served):
    spec, _ = served
    assert [back(world, spec, version="1"), back(world, spec, version="3")] == ["1", "3"]


def test_back_and_forth_again_leaves_the_way_back(world, served):
    spec, _ = served
    assert [back(world, spec, version="2"), back(world, spec, version="3"), back(world, spec)] == ["2", "3", "2"]


def test_the_present_champion_and_unknown_versions_are_refused(world, served):
    spec, _ = served
    with pytest.raises(ValueError, match="is the champion already"):
        back(world, spec, version="3")
    with pytest.raises(FileNotFoundError, match="version 9 of .* is no release; releases: 1, 2, 3"):
        back(world, spec, version="9")
    assert alias(world, spec) == "3"


def test_a_release_whose_verdict_was_changed_is_not_returned_to(world, served):
    spec, releases = served
    changed(world.home / "verdicts" / spec.name / f"{releases[1].verdict}.json", rows=1)
    with pytest.raises(ValueError, match="changed"):
        back(world, spec)
    assert alias(world, spec) == "3"
    assert world.ledger.newest(["rollback"], spec.name) is None


def test_a_release_that_the_ledger_does_not_know_is_not_returned_to(world):
    spec = spec_named("rolled_unrecorded")
    world.point(world.release(spec, 5, recorded=False))
    world.promote(spec, 6)
    with pytest.raises(ArtifactError, match="the ledger knows no such verdict"):
        back(world, spec)


def test_a_segment_s_first_release_is_rolled_back_to_the_pooled_model_and_forth_again(world):
    spec = spec_named("rolled_segments")
    pooled, first = world.promote(spec, 5), world.promote(spec, 6, "New York")
    line = Line(spec.name, "New York")
    releases = world.releases(spec.name, "New York")
    assert releases.champion_at(NOW) == first
    assert rollback(world.lake, world.registry, line, "the port was closed") == pooled
    assert world.registry.get(line.registered, CHAMPION) is None
    assert releases.champion_at(NOW) is None
    assert releases.pooled.champion_at(NOW) == pooled
    assert alias(world, spec) == pooled.version
    with pytest.raises(ValueError, match="served by the pooled model already"):
        rollback(world.lake, world.registry, line, "again")
    assert rollback(world.lake, world.registry, line, "it is open again", first.version) == first
    assert releases.champion_at(NOW) == first


def test_a_segment_without_a_pooled_champion_is_not_left_with_nothing(world):
    spec = spec_named("rolled_alone")
    world.promote(spec, 6, "New York")
    with pytest.raises(ValueError, match="version 1 is the first release"):
        rollback(world.lake, world.registry, Line(spec.name, "New York"), "the port was closed")
