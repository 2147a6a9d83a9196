"""What has happened under a home, from its ledger and manifests."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ct_assets.core.ledger import POINTER_MOVES, PROMOTION, RETRAIN, ROLLBACK, VERDICT, Ledger, Record
from ct_assets.core.segments import Line
from ct_assets.lake.lake import Lake


def summarize(home: Path, ledger: Ledger, sources: Sequence[str], model: str) -> dict[str, Any]:
    """Count what arrived and list what was decided.

    Args:
        home: `$CT_HOME`.
        ledger: The decision records.
        sources: Names of the sources.
        model: Name of the model.

    Returns:
        `model`, `days`, `batches`, `rows`, `retrains`, `promotions`, `rejections`, `inconclusive`, `rollbacks`,
        `champion`; the last six also for each of its `segments`, if it has any.
    """
    lake = Lake(home)
    files = {source: lake.dataset(source).files() for source in sources}
    accepted = [f for found in files.values() for f in found]
    quarantined = [r for r in ledger.records("quarantined") if r.model in sources]
    duplicate = [r for r in ledger.records("duplicate") if r.model in sources]
    rows = {
        "accepted": sum(f.rows for f in accepted),
        "quarantined": _rows(quarantined),
        "duplicate": _rows(duplicate),
    }
    batches = {"quarantined": len(quarantined), "duplicate": len(duplicate)}
    lines = [line for line in map(Line.named, ledger.models()) if line.model == model and line.segment]
    segments = {str(line.segment): _decided(ledger, line.name) for line in sorted(lines, key=lambda line: line.name)}
    return {
        "model": model,
        "days": len({f.partition for f in accepted if f.partition[:1].isdigit()}),
        "batches": {"landed": len(accepted) + sum(batches.values()), **batches},
        "rows": {"landed": sum(rows.values()), **rows},
        **_decided(ledger, model),
        **({"segments": segments} if segments else {}),
    }


def _decided(ledger: Ledger, line: str) -> dict[str, Any]:
    moves = [r for r in ledger.records(model=line) if r.kind in POINTER_MOVES]
    verdicts = ledger.records(VERDICT, line)
    return {
        "retrains": [
            {"as_of": r.as_of, "triggers": r.evidence["decision"]["triggers"]} for r in ledger.records(RETRAIN, line)
        ],
        "promotions": [{**_move(r), "reason": r.evidence.get("reason", "")} for r in moves if r.kind == PROMOTION],
        "rejections": _judged(verdicts, "rejected"),
        "inconclusive": _judged(verdicts, "inconclusive"),
        "rollbacks": [{**_move(r), "reason": r.evidence["reason"]} for r in moves if r.kind == ROLLBACK],
        "champion": moves[-1].evidence["version"] if moves else None,
    }


def _judged(verdicts: Iterable[Record], outcome: str) -> list[dict[str, Any]]:
    """The verdicts with one outcome; those of a time that knew two only are no passes or rejections."""
    found = [(r, r.evidence.get("outcome", "passed" if r.evidence["passed"] else "rejected")) for r in verdicts]
    return [{**_move(r), "reasons": r.evidence["reasons"]} for r, of in found if of == outcome]


def _rows(records: Iterable[Record]) -> int:
    return sum(r.evidence["rows"] for r in records)


def _move(record: Record) -> dict[str, Any]:
    return {"as_of": record.as_of, "version": record.evidence["version"]}
