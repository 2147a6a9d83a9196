"""Whatever somebody changes behind the platform's back: nothing serves that was not judged, and nothing is recorded."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from small_location import SMALL, defs, location
from worlds import MODEL, Driven, champion

from ct_assets.core.segments import Line
from ct_assets.core.verdict import Verdict
from ct_assets.lake.releases import Releases
from ct_assets.lib.driver import Driver, Run
from ct_assets.lib.instance import open_instance
from ct_assets.lib.lineage import training_of
from ct_assets.lib.promotion import reconcile_alias, rollback
from ct_assets.lib.training import promote_judged
from ct_assets.resources.lake import LakeResource
from ct_assets.resources.registry import CHALLENGER, CHAMPION, RegistryResource, Version

CHALLENGE = [dg.AssetKey([MODEL, name]) for name in ("challenger", "evaluation")]
EVALUATE, PROMOTE = dg.AssetKey([MODEL, "evaluation"]), dg.AssetKey([MODEL, "champion"])
IMPOSSIBLE = SMALL.model_copy(update={"gate": SMALL.gate.model_copy(update={"floor": 0.99})})


@dataclass
class Platform:
    """A home with a champion, in this process."""

    home: Path
    driver: Driver
    strict: Driver
    """The same definitions with a gate that nobody passes."""
    registry: RegistryResource
    releases: Releases
    trained: int = 0

    def train(self, driver: Driver | None = None) -> Version:
        """Train, register and judge a new challenger by hand."""
        self.trained += 1
        params = {"max_iter": self.trained, "learning_rate": 0.1, "min_samples_leaf": 40}
        config = {"config": {"estimator": SMALL.estimator.path, "params": params}}
        run = (driver or self.driver).execute(CHALLENGE, None, run_config={"ops": {f"{MODEL}__challenger": config}})
        assert run.success, run.errors
        return self.newest()

    def newest(self) -> Version:
        """The version that was registered last."""
        versions = self.registry.client().search_model_versions(f"name='{MODEL}'")
        return self.registry.version(MODEL, str(max(int(version.version) for version in versions)))

    def verdict_of(self, version: Version) -> Path:
        return self.home / "verdicts" / MODEL / f"{self.releases.newest_verdict(version.version).digest}.json"

    def state(self) -> tuple[str | None, str, list[str]]:
        """What a refused promotion must leave: the alias, the newest decision, the releases."""
        releases = sorted(p.name for p in (self.home / "releases" / MODEL).iterdir())
        return champion(self.home), self.releases.ledger.head(), releases

    def promote(self) -> Run:
        """Materialize `champion` alone and ask for the experiment, as a person may in the UI."""
        config = {"config": {"reason": "it was asked for"}}
        return self.driver.execute([PROMOTE], None, run_config={"ops": {f"{MODEL}__champion": config}})

    def refuses(self, error: str) -> None:
        before = self.state()
        run = self.promote()
        assert not run.success
        assert error in run.errors[0]
        assert self.state() == before


@pytest.fixture
def platform(calm: Driven, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Platform]:
    monkeypatch.setenv("CT_HOME", str(calm.home))
    lake = LakeResource(home=str(calm.home))
    registry = RegistryResource(home=lake.home)
    pointed = {alias: registry.get(MODEL, alias) for alias in (CHALLENGER, CHAMPION)}
    with open_instance(calm.home) as instance:
        drivers = [Driver(d, instance, tmp_path / n) for d, n in ((defs, "usual"), (location(IMPOSSIBLE), "strict"))]
        first_free = 100 + len(registry.client().search_model_versions(f"name='{MODEL}'"))
        yield Platform(calm.home, *drivers, registry, Releases(calm.home, Line(MODEL), lake.ledger()), first_free)
    for alias, version in pointed.items():
        registry.point(MODEL, alias, version.version)


@pytest.fixture
def restored() -> Iterator[Callable[[Path], Path]]:
    """Call it with a file before changing it."""
    kept: dict[Path, bytes] = {}

    def keep(path: Path) -> Path:
        kept[path] = path.read_bytes()
        return path

    yield keep
    for path, payload in kept.items():
        path.write_bytes(payload)


def test_an_artifact_with_one_byte_changed_is_refused_even_by_the_process_that_judged_it(platform: Platform) -> None:
    artifact = Path(platform.train().artifact)
    payload = bytearray(artifact.read_bytes())
    payload[len(payload) // 2] ^= 1
    artifact.write_bytes(payload)
    platform.refuses("ArtifactError: artifact has digest")


def test_a_challenger_that_nobody_judged_is_refused(platform: Platform) -> None:
    unjudged = [key for key in CHALLENGE if key.path[-1] != "evaluation"]
    config = {"config": {"estimator": SMALL.estimator.path, "params": {"max_iter": 7, "min_samples_leaf": 40}}}
    assert platform.driver.execute(unjudged, None, run_config={"ops": {f"{MODEL}__challenger": config}}).success
    before, lake = platform.state(), LakeResource(home=str(platform.home))
    with pytest.raises(FileNotFoundError, match="has no verdict"):
        promote_judged(lake, platform.registry, SMALL, Line(MODEL), platform.newest(), "it was asked for")
    assert platform.state() == before


def test_a_challenger_whose_verdict_is_gone_is_refused(platform: Platform) -> None:
    platform.verdict_of(platform.train()).unlink()
    platform.refuses("is gone: expected")


def test_a_rejection_edited_into_a_pass_is_refused(platform: Platform) -> None:
    path = platform.verdict_of(platform.train(platform.strict))
    content = json.loads(path.read_text())
    assert content["passed"] is False
    path.write_text(json.dumps(content | {"passed": True}))
    platform.refuses("VerdictError: verdict says digest")


def test_a_rejection_edited_and_sealed_anew_is_refused(platform: Platform) -> None:
    path = platform.verdict_of(platform.train(platform.strict))
    content = json.loads(path.read_text()) | {"passed": True}
    content["checks"] = [check | {"passed": True, "inconclusive": False} for check in content["checks"]]
    content["digest"] = Verdict.model_validate_json(json.dumps(content)).computed_digest()
    forged = Verdict.model_validate_json(json.dumps(content))
    forged.verify()
    path.with_name(f"{forged.digest}.json").write_text(json.dumps(content))
    platform.refuses("its verdict is a rejection")
    path.write_text(json.dumps(content))
    platform.refuses("VerdictError")


def test_the_verdict_of_another_version_is_refused(platform: Platform) -> None:
    good, bad = platform.train(), platform.train(platform.strict)
    platform.verdict_of(bad).write_bytes(platform.verdict_of(good).read_bytes())
    platform.refuses("not the one it is named after")


def test_evaluation_and_champion_in_one_manual_run_do_not_promote_what_fails_the_gate(platform: Platform) -> None:
    platform.train(platform.strict)
    alias, _, releases = platform.state()
    run = platform.strict.execute([EVALUATE, PROMOTE], None)
    assert not run.success
    assert "its verdict is a rejection" in run.errors[0]
    assert (champion(platform.home), platform.state()[2]) == (alias, releases)
    assert platform.releases.ledger.records(model=MODEL)[-1].kind == "verdict"


def test_the_challenger_alias_moved_to_a_rejected_version_promotes_nothing_else(platform: Platform) -> None:
    rejected, passed = platform.train(platform.strict), platform.train()
    assert passed.version != rejected.version
    platform.registry.point(MODEL, CHALLENGER, rejected.version)
    assert platform.promote().success
    assert champion(platform.home) == passed.version
    rollback(LakeResource(home=str(platform.home)), platform.registry, Line(MODEL), "as it was")


def test_the_champion_alias_moved_to_a_rejected_version_scores_nothing_and_is_put_back(
    calm: Driven, platform: Platform
) -> None:
    serving = platform.releases.moves()[-1]["version"]
    rejected = platform.train(platform.strict)
    platform.registry.point(MODEL, CHAMPION, rejected.version)
    manifest = calm.home / "lake" / MODEL / "scored" / "manifest.json"
    before = manifest.read_text()
    assert platform.driver.execute([dg.AssetKey([MODEL, "scored"])], "2013-01-04").success
    assert manifest.read_text() == before
    assert reconcile_alias(LakeResource(home=str(platform.home)), platform.registry, Line(MODEL))
    assert champion(platform.home) == serving


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (("artifact",), "ArtifactError: artifact has digest"),
        (("artifact", "artifact_digest"), "is not the release that was promoted as version 1"),
    ],
)
def test_a_release_that_points_to_another_model_scores_nothing(
    platform: Platform, restored: Callable[[Path], Path], fields: tuple[str, ...], error: str
) -> None:
    first, other = restored(platform.home / "releases" / MODEL / "1.json"), platform.train()
    content = json.loads(first.read_text())
    elsewhere = {"artifact": other.artifact, "artifact_digest": other.tags["artifact_digest"]}
    first.write_text(json.dumps(content | {name: elsewhere[name] for name in fields}))
    manifest = platform.home / "lake" / MODEL / "scored" / "manifest.json"
    before = manifest.read_text()
    run = platform.driver.execute([dg.AssetKey([MODEL, "scored"])], "2013-01-04")
    assert not run.success
    assert error in run.errors[0]
    assert manifest.read_text() == before


def test_a_release_file_laid_out_beforehand_gives_way_to_what_was_judged(platform: Platform) -> None:
    challenger = platform.train()
    planted = platform.home / "releases" / MODEL / f"{challenger.version}.json"
    first = json.loads((planted.parent / "1.json").read_text())
    planted.write_text(json.dumps(first | {"version": challenger.version}))
    assert platform.promote().success
    release = platform.releases.get(challenger.version)
    assert release.artifact_digest == challenger.tags["artifact_digest"] != first["artifact_digest"]
    assert release.verdict == platform.releases.newest_verdict(challenger.version).digest


def test_the_untouched_challenger_is_promoted(platform: Platform) -> None:
    version = platform.train().version
    assert platform.promote().success
    assert champion(platform.home) == version
    assert platform.releases.moves()[-1]["version"] == version


def test_what_is_tried_after_the_verdict_is_not_promoted_in_its_place(platform: Platform) -> None:
    judged = platform.train()
    config = {"config": {"params": {"max_iter": 8, "learning_rate": 0.1, "min_samples_leaf": 40}}}
    tried = platform.driver.execute(CHALLENGE[:1], None, run_config={"ops": {f"{MODEL}__challenger": config}})
    assert tried.success and platform.newest().version != judged.version
    trained = training_of(platform.releases, platform.newest().version)
    assert trained is not None and trained["estimator"]["params"]["max_iter"] == 8 and trained["promote"] is False
    assert platform.promote().success
    assert champion(platform.home) == judged.version
    rollback(LakeResource(home=str(platform.home)), platform.registry, Line(MODEL), "as it was")
