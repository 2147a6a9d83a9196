"""Training sets whose examples come partly from what was scored and partly from the feature store."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from labelled_world import DAY, FEATURES, MESSAGES, REACH, START, World, day, model, world
from worlds_of_core import spec_with

from ct_assets.core.segments import SERVED_BY
from ct_assets.core.spec import EventSpec, LabelSpec, ModelSpec
from ct_assets.lake.training_set import build_training_set, load_training_set, read_examples
from ct_assets.lib.label_counts import labels_by_segment

#: Shops of the loans, as their features give them: whole numbers that are floats beside a missing one.
SHOPS = [1.0, 2.0, 1.0, 2.0, float("nan"), 1.0]
MATURE = START + 4 * DAY + REACH


class Store:
    """The part of Feast's store that is asked, over a table of one feature by moment of prediction."""

    def __init__(self, found: dict[pd.Timestamp, float]) -> None:
        self.found = found

    def get_feature_service(self, name: str) -> str:
        return name

    def get_historical_features(self, asked: pd.DataFrame, *_: object, **__: object) -> Any:
        joined = asked.assign(x=asked["event_timestamp"].map(self.found))
        return SimpleNamespace(to_arrow=lambda: pa.Table.from_pandas(joined, preserve_index=False))


def shops(home: Path, scored: int) -> World:
    """Six loans, one every four hours, of which the first were scored in their time."""
    spec = model("delay").model_copy(update={"inputs": {"x": "categorical"}, "entities": (), "segment_by": "x"})
    loans = [(f"l{i}", 4 * i, 0) for i in range(6)]
    made = world(home, spec, loans, [(name, i % 2, 40 + i) for i, (name, *_) in enumerate(loans)])
    made.arrive(7)
    rows = made.scored().assign(x=["1", "2", "1", "2", "(missing)", "1"]).head(scored)
    made.lake.dataset("m/scored", "event_timestamp").write(day(0), pa.Table.from_pandas(rows, preserve_index=False))
    return made


def snapshot(made: World, segment: str | None = None) -> tuple[str, list[str]]:
    store: Any = Store(dict(zip(made.loans["starts_at"], SHOPS, strict=True)))
    found = build_training_set(made.lake, store, made.spec, MATURE, START, FEATURES, segment)
    return found.digest, list(read_examples(made.lake, found, "train")["id"])


def test_categories_are_the_same_whether_an_event_was_scored_or_is_joined_anew(tmp_path: Path) -> None:
    digests = {snapshot(shops(tmp_path / str(scored), scored))[0] for scored in (6, 3, 1)}
    assert len(digests) == 1


@pytest.mark.parametrize("scored", [6, 3, 1])
def test_a_segment_has_all_its_examples_whether_they_were_scored_or_are_joined_anew(
    scored: int, tmp_path: Path
) -> None:
    made = shops(tmp_path, scored)
    assert snapshot(made, "1")[1] == ["l0", "l2", "l5"]
    assert snapshot(made, "2")[1] == ["l1", "l3"]


def test_the_same_rows_at_a_later_moment_leave_the_earlier_snapshot_as_it_was_judged(tmp_path: Path) -> None:
    made = shops(tmp_path, 6)
    store: Any = Store(dict(zip(made.loans["starts_at"], SHOPS, strict=True)))
    moments = [START + REACH + hours for hours in (DAY + DAY, DAY + DAY + DAY / 2, DAY + DAY)]
    first, later, again = (build_training_set(made.lake, store, made.spec, t, START, FEATURES) for t in moments)
    assert first.rows_digest == later.rows_digest
    assert first == again and first.digest == again.digest != later.digest
    for found, kept in ((first, ["l0", "l1", "l2", "l3", "l4", "l5"]), (later, ["l3", "l4", "l5"])):
        reread = load_training_set(made.lake, found.digest)
        assert list(read_examples(made.lake, reread, "holdout")["id"]) == kept


def test_a_snapshot_whose_split_was_changed_is_refused(tmp_path: Path) -> None:
    made = shops(tmp_path, 6)
    found, _ = snapshot(made)
    path = tmp_path / "training_sets" / found / "manifest.json"
    path.write_text(path.read_text().replace('"train_rows": ', '"train_rows": 1'))
    with pytest.raises(ValueError, match=r"manifest\.json was changed"):
        load_training_set(made.lake, found)


def test_rows_that_were_changed_are_refused(tmp_path: Path) -> None:
    made = shops(tmp_path, 6)
    found = load_training_set(made.lake, snapshot(made)[0])
    [block] = found.blocks
    path = tmp_path / "training_sets" / "rows" / f"{block}.parquet"
    rows = pd.read_parquet(path)
    rows.assign(label=1 - rows["label"]).to_parquet(path, index=False)
    for part in ("train", "holdout"):
        with pytest.raises(ValueError, match=r"parquet was changed: its rows are not those of training set"):
            read_examples(made.lake, found, part)
    # As it says, another training mends it.
    assert snapshot(made)[0] == found.digest
    assert len(read_examples(made.lake, found, "train")) == found.train_rows


def test_a_weight_is_what_was_known_at_the_moment_of_prediction(tmp_path: Path) -> None:
    made = world(tmp_path, _weighted(), [("a", 1, 0), ("b", 2, 0)], [("a", 0, 30), ("b", 1, 31)])
    made.arrive(7)
    # Said again later the same day, of another hour: known too late for the prediction, which it does not change.
    again = made.loans.assign(known_at=made.loans["starts_at"], hours=made.loans["starts_at"].dt.hour)
    later = again.assign(known_at=again["known_at"] + DAY / 2, hours=99)
    rows = pa.Table.from_pandas(pd.concat([again, later]), preserve_index=False)
    made.lake.dataset("loans").write(day(0), rows)
    found = build_training_set(made.lake, None, made.spec, MATURE, START, FEATURES)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_examples(made.lake, found, "train")["own"], [1.0, 2.0])


def _weighted() -> ModelSpec:
    sql = "SELECT id, starts_at AS event_timestamp, due_at, hours AS own FROM loans"
    label = LabelSpec(source="messages", sql=MESSAGES, delay=REACH)
    events = EventSpec(source="loans", sql=sql, id_column="id")
    return spec_with({"x": "numeric"}, events=events, label=label, evaluation_days=1, weight="own")


def test_a_missing_or_empty_value_is_no_segment(tmp_path: Path) -> None:
    made = world(tmp_path, model("delay").model_copy(update={"segment_by": "shop"}), [("a", 1, 0)])
    # A slice may be called `segment` too.
    outcomes = pd.DataFrame({"id": list("abcdef"), "shop": ["x", "x", "y", "", "(missing)", "y"], "segment": "s"})
    moments = {"event_timestamp": START, "known_at": START + DAY, "label": 1, SERVED_BY: "(pooled)"}
    table = pa.Table.from_pandas(outcomes.assign(**moments), preserve_index=False)
    made.lake.dataset("m/performance").write(day(1), table)
    assert labels_by_segment(made.lake, made.spec, MATURE) == {"x": 2, "y": 2}
