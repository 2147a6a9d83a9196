"""Decisions in words: what the ledger says, for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from ct_assets.core.ledger import DECISIONS, POINTER_MOVES, RETRAIN, ROLLBACK, TRAINING, VERDICT, Ledger, Record
from ct_assets.core.metrics import HIGHER_IS_BETTER


def explain(ledger: Ledger, model: str, version: str = "") -> str:
    """How a version came to be, how it was judged, and when it served.

    Args:
        ledger: The decision records.
        model: Name of the model.
        version: Version to explain; the champion when empty.

    Raises:
        LookupError: There is no champion, or no such version.
    """
    records = ledger.records(model=model)
    moves = [r for r in records if r.kind in POINTER_MOVES]
    if not version and not moves:
        raise LookupError(f"{model} has no champion yet. {_latest_decision(ledger, model)}")
    version = version or next(str(m.evidence["version"]) for m in reversed(moves) if m.evidence["version"])
    training = _of_version(records, TRAINING, version)
    if training is None:
        known = ", ".join(str(r.evidence["version"]) for r in records if r.kind == TRAINING) or "none"
        raise LookupError(f"{model} has no version {version}; versions: {known}")
    lines = [f"{model} version {version}", ""]
    lines += _why_trained(records, training)
    lines += _how_judged(_of_version(records, VERDICT, version))
    lines += _when_served(moves, version)
    lines += ["", _latest_decision(ledger, model)]
    return "\n".join(lines)


def _why_trained(records: list[Record], training: Record) -> list[str]:
    evidence = training.evidence
    lines = [
        f"Trained as of {training.as_of[:10]} on {_rows_used(evidence)} "
        f"(training set {evidence['training_set'][:12]}, code {evidence['code_version'][:12]}).",
    ]
    if "declared_evaluation_days" in evidence:
        days, declared = evidence["evaluation_days"], evidence["declared_evaluation_days"]
        lines.append(
            f"It was judged on {days} days of labels instead of {declared}: too few for a verdict before, so the "
            "evaluation window grew."
        )
    decision = next((r for r in records if r.kind == RETRAIN and r.as_of == training.as_of), None)
    if evidence["by_hand"] or decision is None:
        return [*lines, "It was trained by hand."]
    told = decision.evidence["decision"]
    return [*lines, *(f"  because of {name}: {told['reasons'][name]}" for name in told["triggers"])]


def _rows_used(evidence: Mapping[str, Any]) -> str:
    """How many examples were really fitted, of which time, and what the training went on from."""
    known, fitted = evidence["train_rows"], evidence.get("fitted")
    started = evidence.get("lineage", {}).get("started_from")
    if fitted is None:
        # Recorded before it was.
        return f"{known:,} examples"
    used = f"{fitted['rows']:,} examples" if fitted["rows"] == known else f"{fitted['rows']:,} of {known:,} examples"
    if fitted["first"]:
        used += f", predicted from {fitted['first'][:10]} to {fitted['last'][:10]}"
    return f"{used}, going on from version {started['version']}" if started else used


def _how_judged(verdict: Record | None) -> list[str]:
    if verdict is None:
        return ["It was never judged, so it may not serve."]
    challenger, champion = (verdict.evidence["metrics"].get(side) for side in ("challenger", "champion"))
    compared = ", ".join(
        f"{name} {value:.4f}" + (f" (champion {champion[name]:.4f})" if _has(champion, name) else "")
        for name, value in (challenger or {}).items()
        if name in HIGHER_IS_BETTER and value is not None
    )
    words = {
        "passed": "The gate passed it",
        "rejected": "The gate rejected it",
        "inconclusive": "It was not conclusive",
    }
    outcome = verdict.evidence.get("outcome", "passed" if verdict.evidence["passed"] else "rejected")
    lines = [f"{words[outcome]}: {compared}.", *(f"  {reason}" for reason in verdict.evidence["reasons"])]
    if outcome == "inconclusive":
        lines.append("  The evaluation window of the next training grows as far as it takes and examples allow.")
    return lines


def _has(metrics: Mapping[str, float | None] | None, name: str) -> bool:
    return metrics is not None and metrics.get(name) is not None


def _when_served(moves: list[Record], version: str) -> list[str]:
    lines = []
    for move, following in zip(moves, [*moves[1:], None], strict=False):
        if str(move.evidence["version"]) != version:
            continue
        until = f"until {following.as_of[:10]}, when {_who(following)} took over" if following else "to this day"
        how = f"after a rollback ({move.evidence['reason']})" if move.kind == ROLLBACK else "promoted"
        lines.append(f"It was champion from {move.as_of[:10]} ({how}) {until}.")
    return lines or ["It never served."]


def _who(move: Record) -> str:
    version = move.evidence["version"]
    return f"version {version}" if version else "the pooled model"


def _latest_decision(ledger: Ledger, model: str) -> str:
    record = ledger.newest(DECISIONS, model)
    if record is None:
        return "Nothing was decided about it yet."
    decision = record.evidence["decision"]
    head = f"Newest decision, {record.as_of[:10]}: " + ("retrain." if decision["retrain"] else "no retrain.")
    return "\n".join([head, *(f"  {name}: {reason}" for name, reason in decision["reasons"].items())])


def _of_version(records: list[Record], kind: str, version: str) -> Record | None:
    return next((r for r in reversed(records) if r.kind == kind and str(r.evidence.get("version")) == version), None)


def status_tables(summary: dict[str, Any]) -> Iterator[RenderableType]:
    """A model's state as tables."""
    batches, rows = summary["batches"], summary["rows"]
    champion = f"version {summary['champion']}" if summary["champion"] else "none yet"
    yield f"{summary['model']}: champion {champion}"
    yield (
        f"{summary['days']} days, {batches['landed']} batches landed, {batches['quarantined']} quarantined, "
        f"{batches['duplicate']} duplicate; {rows['accepted']:,} of {rows['landed']:,} rows accepted"
    )
    for line, held in summary.get("held", {}).items():
        yield escape(f"{line} is held: {held}")
    yield decisions_table(summary)
    if summary.get("segments"):
        yield segments_table(summary)


def segments_table(summary: dict[str, Any]) -> Table:
    """What each segment has come to."""
    table = Table(title="Segments", title_justify="left")
    kinds = ("retrains", "promotions", "rejections", "inconclusive", "rollbacks")
    for column in ("segment", "champion", *kinds):
        table.add_column(column, overflow="fold")
    for segment, decided in summary["segments"].items():
        champion = f"version {decided['champion']}" if decided["champion"] else "the pooled model"
        counts = [str(len(decided[kind])) for kind in kinds]
        table.add_row(escape(segment), champion, *counts)
    return table


def decisions_table(summary: dict[str, Any]) -> Table:
    """Every retrain, promotion, rejection and rollback, in order."""
    table = Table(title="What was decided, and why", title_justify="left")
    for column in ("as of", "decision", "why"):
        table.add_column(column, overflow="fold")
    rows = [(r["as_of"], 0, "retrain", ", ".join(r["triggers"])) for r in summary["retrains"]]
    rows += [(r["as_of"], 1, f"reject v{r['version']}", "; ".join(r["reasons"])) for r in summary["rejections"]]
    rows += [(r["as_of"], 1, f"v{r['version']} inconclusive", "; ".join(r["reasons"])) for r in summary["inconclusive"]]
    rows += [
        (r["as_of"], 2, f"promote v{r['version']}", r["reason"] or "its verdict passed") for r in summary["promotions"]
    ]
    rows += [(r["as_of"], 3, f"roll back to v{r['version']}", r["reason"]) for r in summary["rollbacks"]]
    for as_of, _, decision, why in sorted(rows):
        table.add_row(as_of[:10], decision, escape(why))
    return table
