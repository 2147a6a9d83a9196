"""Is a retrain due? The evidence of a moment, what was decided on it, and what is still to be answered."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import pandas as pd

from ct_assets.core.canonical import digest
from ct_assets.core.ledger import DECISIONS, REQUEST, RETRAIN, SKIP, TRAINING, VERDICT, Record
from ct_assets.core.policy import Decision, Evidence, RetrainPolicy, decide
from ct_assets.core.segments import Line
from ct_assets.core.spec import ModelSpec
from ct_assets.lake.examples import INSTANT
from ct_assets.lake.lake import Lake
from ct_assets.lake.releases import Release, Releases
from ct_assets.lib.label_counts import untrainable
from ct_assets.lib.monitoring_reports import read_report, read_reports, save_report
from ct_assets.lib.performance import performance_report
from ct_assets.lib.seen import growth_of
from ct_assets.lib.silence import silent_sources

FreshWithin = Mapping[str, timedelta]
"""Source to how long it may be silent."""
NO_SOURCES: FreshWithin = {}


def policy_of(spec: ModelSpec, line: Line) -> RetrainPolicy:
    """The policy of a line: a segment's first training waits for its own number of labels."""
    if line.segment is None:
        return spec.policy
    return spec.policy.model_copy(update={"first_training_rows": spec.segments.min_labels})


def gather_evidence(
    lake: Lake, releases: Releases, spec: ModelSpec, as_of: pd.Timestamp, fresh_within: FreshWithin = NO_SOURCES
) -> Evidence:
    """What was known of a line at the time of a decision, and nothing that was decided at or after it.

    So a decision that is computed again, after a crash or in a replay, comes out the same.
    """
    champion = releases.champion_at(as_of - INSTANT)
    training = _trained_before(releases, as_of)
    performance = read_report(lake, spec, "performance", as_of, releases.line)
    drift = read_report(lake, spec, "drift", as_of, releases.line)
    request = open_request(releases, as_of)
    return Evidence(
        as_of=as_of.to_pydatetime(),
        known_labels=performance["labels_known"],
        champion_as_of=_moment(champion),
        last_training_as_of=datetime.fromisoformat(training.as_of) if training else None,
        last_training_labels=training.evidence.get("labels_known") if training else None,
        drifted_share=drift.get("drifted_share"),
        drifted_columns=tuple(drift.get("drifted", ())),
        performance_now=performance["now"],
        performance_reference=performance["reference"],
        performance_rows=performance["rows"],
        performance_days=performance.get("days", 0),
        performance_margin=performance.get("margin"),
        performance_baseline=performance.get("baseline"),
        manual_request=request is not None,
        manual_reason=request.evidence["reason"] if request else "",
        manual_number=request.seq if request else None,
        silent=silent_sources(lake, fresh_within, as_of),
        label_gaps=performance.get("label_gaps", ""),
    )


def decide_about(
    lake: Lake, releases: Releases, spec: ModelSpec, as_of: pd.Timestamp, fresh_within: FreshWithin = NO_SOURCES
) -> tuple[Evidence, Decision]:
    """What is decided about a line at a time, and on which evidence.

    Args:
        lake: Where outcomes and sources are.
        releases: Those of the line.
        spec: The model.
        as_of: The time.
        fresh_within: How long each source may be silent; those that are silent for longer are named.
    """
    policy = policy_of(spec, releases.line)
    evidence = gather_evidence(lake, releases, spec, as_of, fresh_within)
    decision = decide(policy, evidence)
    # Only now, as this reads all labels.
    if decision.retrain:
        growth = growth_of(lake, releases, spec, as_of)
        if found := untrainable(lake, spec, releases.line, as_of, growth):
            evidence = evidence.model_copy(update={"untrainable": found})
            decision = decide(policy, evidence)
    return evidence, decision


def record_decision(releases: Releases, evidence: Evidence, decision: Decision) -> Record:
    """Write the decision of one time to the ledger: once, and once more when later arrivals turn a skip into a retrain.

    What is decided again on the same evidence, after a crash or in a replay, is the same record. A retrain that was
    decided stays decided.
    """
    content = {"decision": decision.model_dump(mode="json"), "evidence": evidence.model_dump(mode="json")}
    name, ledger, key = releases.model, releases.ledger, f"decision/{releases.model}/{evidence.as_of.isoformat()}"
    kind = RETRAIN if decision.retrain else SKIP
    first = ledger.find(key)
    if first is not None and decision.retrain and (first.kind == SKIP or evidence.manual_request):
        key += f"/again/{digest(content['evidence'])[:16]}"
    return ledger.append(kind, name, evidence.as_of, content, key=key)


def reconsider(
    lake: Lake, releases: Releases, spec: ModelSpec, late: pd.Timestamp, fresh_within: FreshWithin = NO_SOURCES
) -> Record | None:
    """Decide once more for the newest time, if the labels of an earlier one were joined only now.

    Runs of different days may overtake each other. The newest decision then did not know what it should have known,
    and no later day may come to make up for it.

    Args:
        lake: Where the outcomes are.
        releases: Those of the line.
        spec: The model.
        late: The time that was just decided about.
        fresh_within: How long each source may be silent.

    Returns:
        The new record, if a decision to skip has become one to retrain; a retrain that is due already stays due.
    """
    decided = newest_decision(releases)
    if decided is None or decided.kind == RETRAIN or pd.Timestamp(decided.as_of) <= late:
        return None
    as_of, line = pd.Timestamp(decided.as_of), releases.line
    report = performance_report(lake, releases, spec, as_of)
    others = read_reports(lake, spec, "performance", as_of) if spec.segment_by else {}
    save_report(lake, spec, "performance", as_of, {**others, line.partition: report} if spec.segment_by else report)
    evidence, decision = decide_about(lake, releases, spec, as_of, fresh_within)
    return record_decision(releases, evidence, decision) if decision.retrain else None


def newest_decision(releases: Releases) -> Record | None:
    """The decision about the latest moment of event time."""
    return releases.ledger.newest(DECISIONS, releases.model)


def retrain_due(releases: Releases) -> Record | None:
    """The newest decision of a line, if it was to retrain and no model was judged for it yet.

    Newest in event time: an older day that is decided again, or late, neither asks for a training by itself nor hides
    that one is due.
    """
    decision = newest_decision(releases)
    judged = releases.ledger.newest([VERDICT], releases.model, wanted=_is_of_the_loop)
    if decision is None or decision.kind == SKIP:
        return None
    if judged is None:
        return decision
    times = pd.Timestamp(judged.as_of), pd.Timestamp(decision.as_of)
    # A request by hand may be decided about after a model was judged for the same time.
    answered = times[0] > times[1] or (times[0] == times[1] and judged.seq > decision.seq)
    return None if answered else decision


def _trained_before(releases: Releases, as_of: pd.Timestamp) -> Record | None:
    return releases.ledger.newest([TRAINING], releases.model, before=as_of, wanted=_is_of_the_loop)


def _is_of_the_loop(record: Record) -> bool:
    """Not an experiment: trying something neither answers what is due nor puts off what will be."""
    return not record.is_experiment


def open_request(releases: Releases, as_of: pd.Timestamp | None = None) -> Record | None:
    """The newest request by hand that is not answered: by a training, or by a decision of an earlier time to retrain.

    What is decided again at the very time at which the request was taken up, as labels came late, takes it up once more
    only while no training has followed.

    Args:
        releases: Those of the line.
        as_of: The time of the decision that is being made; that of the newest request when None.
    """
    ledger = releases.ledger
    request = ledger.last_written([REQUEST], releases.model, until=as_of)
    if request is None:
        return None
    before = pd.Timestamp(request.as_of) if as_of is None else as_of
    training, earlier = _trained_before(releases, before), ledger.newest([RETRAIN], releases.model, before=before)
    if (training is not None and training.seq > request.seq) or _takes_up(earlier, request):
        return None
    now = ledger.newest([RETRAIN], releases.model, before=before + INSTANT)
    # A training that comes out as one before is not recorded again; its verdict is.
    done = ledger.newest([TRAINING, VERDICT], releases.model, wanted=_is_of_the_loop)
    is_done = now is not None and _takes_up(now, request) and done is not None and done.seq > now.seq
    return None if is_done else request


def _takes_up(decision: Record | None, request: Record) -> bool:
    return decision is not None and bool(decision.evidence["evidence"].get("manual_number") == request.seq)


def _moment(champion: Release | None) -> datetime | None:
    return datetime.fromisoformat(champion.as_of) if champion else None
