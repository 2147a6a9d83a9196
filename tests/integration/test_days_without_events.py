"""A model whose events come once a week has days without any."""

from ct_assets.core.ledger import Ledger
from ct_assets.core.segments import Line
from ct_assets.defs.models.flight_delay.spec import SPEC
from ct_assets.lake.releases import Releases
from ct_assets.lib.scoring import score_day


def test_a_day_without_events_is_scored_with_the_types_of_any_other(world):
    nothing = SPEC.events.model_copy(update={"sql": f"SELECT * FROM ({SPEC.events.sql}) WHERE carrier = 'nobody'"})
    releases = Releases(world.home, Line(SPEC.name), Ledger(world.home / "ledger" / "decisions.jsonl"))
    tables = [
        score_day(world.lake, world.store, releases, spec, "2013-01-05")[0]
        for spec in (SPEC, SPEC.model_copy(update={"events": nothing}))
    ]
    assert tables[0].num_rows > tables[1].num_rows == 0
    assert tables[0].schema == tables[1].schema
