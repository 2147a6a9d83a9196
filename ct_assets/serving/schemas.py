"""What goes over the wire: request and response bodies, and the checks on the instances of a request."""

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from ct_assets.core.spec import ModelSpec
from ct_assets.core.tasks import Multiclass, Quantile, Regression, Task

MAX_INSTANCES = 1000
CLOCK_TOLERANCE = timedelta(minutes=1)
"""How far a caller's clock may be ahead."""

#: One list a column, one entry an instance.
Columns = dict[str, list[Any]]


class InstanceError(ValueError):
    """An instance that is not what the model expects."""


class PredictRequest(BaseModel):
    """Body of a prediction request."""

    model_config = ConfigDict(extra="forbid")
    instances: list[dict[str, Any]] = Field(
        min_length=1, max_length=MAX_INSTANCES, description="Entity keys and request values of each instance."
    )
    at: str | None = Field(
        None,
        description="Timestamp that freshness is judged against, ISO 8601 with a time zone; default: now. Not in the "
        "future, and not more than a day older than the newest features, as the online store has no others.",
    )


class ServedBy(BaseModel):
    """What answered: the judged artifact and the verdict that lets it serve, both by digest."""

    artifact_digest: str
    verdict: str


class SegmentServedBy(ServedBy):
    """The champion of a segment that answered."""

    version: str


class Answer(BaseModel):
    """What answers of every task have."""

    features_at: dict[str, str | None] = Field(
        description="Event time of the row that each feature view gave; null where it was missing or expired."
    )


class BinaryAnswer(Answer):
    """Answer of a binary task for one instance."""

    score: float = Field(description="Probability of the positive class.")


class ClassAnswer(Answer):
    """Answer of a multiclass task for one instance."""

    likeliest: str = Field(serialization_alias="class", description="The most likely class.")
    probabilities: dict[str, float] = Field(description="Probability of each class, in the model's order.")


class ValueAnswer(Answer):
    """Answer of a regression for one instance."""

    value: float = Field(description="The predicted value.")


class QuantileAnswer(Answer):
    """Answer of a quantile regression for one instance."""

    value: float = Field(description="The quantile nearest to the median.")
    quantiles: dict[str, float] = Field(description="Value of each quantile, by its level such as `0.1`; ascending.")


# The order counts where one has the fields of another: the fuller one first.
Prediction = BinaryAnswer | ClassAnswer | QuantileAnswer | ValueAnswer


class InstanceReason(BaseModel):
    """An instance of the request, and what is the matter with it."""

    instance: int = Field(description="Its place in the request, from 0.")
    reason: str


class PredictResponse(BaseModel):
    """Answers in the order of the instances; their fields are those of the model's task.

    All are from one release, unless the model has segments with champions of their own.
    """

    model: str
    version: str
    release: ServedBy
    predictions: list[Prediction]
    segments: dict[str, SegmentServedBy] = Field({}, description="The champions of segments that answered.")
    served_by: list[str | None] = Field(
        [], description="Whose champion answered each instance: a segment's, or null for the model's own."
    )
    fallbacks: list[InstanceReason] = Field(
        [], description="Instances that lack fresh features and got the declared fallback instead of a prediction."
    )


class PartialResponse(BaseModel):
    """What an answer is when some instances have no prediction: why, and the predictions of the others."""

    detail: str
    errors: list[InstanceReason]
    predictions: list[Prediction | None] = Field(description="Null for the instances with an error.")


class ServedRelease(BaseModel):
    """The release that serves."""

    version: str
    artifact_digest: str
    verdict: str
    training_set: str
    feature_service: str
    feature_versions: dict[str, str]
    as_of: str
    loaded_at: datetime


class RefusedRelease(BaseModel):
    """The newest release that the ledger named and this server would not load."""

    version: str
    reason: str
    at: datetime


class ModelStatus(BaseModel):
    """What a model serves, and what it waits for when it serves nothing."""

    model: str
    release: ServedRelease | None
    waiting_for: str | None
    last_refusal: RefusedRelease | None
    problems: list[str] = Field(
        [], description="What a registry says otherwise than the ledger, or why one cannot be read."
    )
    segments: dict[str, ServedRelease] = Field({}, description="The segments with a champion of their own.")
    segment_refusals: dict[str, RefusedRelease] = {}


def answers(
    task: Task, predictions: npt.NDArray[np.float64], times: Iterable[dict[str, str | None]]
) -> list[Prediction]:
    """Predictions as they go over the wire.

    Args:
        task: The model's task.
        predictions: One a row, as the task shapes them.
        times: Event times of the features behind each.
    """
    rows = zip(predictions.tolist(), times, strict=True)
    match task:
        case Multiclass():
            named = zip(task.likeliest(predictions).tolist(), rows, strict=True)
            return [
                ClassAnswer(likeliest=name, probabilities=dict(zip(task.classes, row, strict=True)), features_at=at)
                for name, (row, at) in named
            ]
        case Quantile():
            levels = [f"{level:g}" for level in task.quantiles]
            return [
                QuantileAnswer(value=row[task.central], quantiles=dict(zip(levels, row, strict=True)), features_at=at)
                for row, at in rows
            ]
        case Regression():
            return [ValueAnswer(value=value, features_at=at) for value, at in rows]
    return [BinaryAnswer(score=score, features_at=at) for score, at in rows]


def parse_at(value: str | None, now: datetime) -> datetime:
    """The timestamp that a request asks about.

    Raises:
        InstanceError: It is no timestamp with a time zone, or in the future.
    """
    if value is None:
        return now
    at = parse_moment(value, "at")
    if at > now + CLOCK_TOLERANCE:
        raise InstanceError(
            f"at is {value!r}, which is in the future: here it is {now.isoformat()}; leave it out for now"
        )
    return at


def parse_moment(value: Any, field: str) -> datetime:
    """Read an ISO 8601 timestamp that says its time zone.

    Raises:
        InstanceError: It is no text, no timestamp, or naive.
    """
    example = "expected ISO 8601 with a time zone, as '2013-03-01T15:00:00Z'"
    if not isinstance(value, str):
        raise InstanceError(f"{field} is {value!r:.60}; {example}")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise InstanceError(f"{field} is {value!r:.60}; {example}") from error
    if moment.tzinfo is None:
        raise InstanceError(f"{field} is {value!r}, which has no time zone; {example}")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise InstanceError(f"{field} is {value!r}, which is no moment in UTC; {example}") from error


def parse_instances(
    spec: ModelSpec, key_types: Mapping[str, type[str] | type[int]], instances: list[dict[str, Any]]
) -> Columns:
    """Check the instances of a request and turn them into columns.

    Args:
        spec: Says which keys an instance has: its entities and request values.
        key_types: Type of each entity key.
        instances: As they came.

    Returns:
        The entity keys (None: unknown, all its features are missing) and request values; timestamps in UTC.

    Raises:
        InstanceError: A key is missing or unknown, or a value has another type; names the instance and the key.
    """
    parsers = {key: _key_parser(key_types.get(key, str)) for key in spec.entities}
    parsers |= {key: _PARSERS[kind] for key, kind in spec.request.items()}
    columns: Columns = {key: [] for key in parsers}
    for number, instance in enumerate(instances):
        if instance.keys() != parsers.keys():
            raise InstanceError(_wrong_keys(number, instance, spec))
        for key, parse in parsers.items():
            columns[key].append(parse(instance[key], f"instances[{number}].{key}"))
    return columns


def _wrong_keys(number: int, instance: dict[str, Any], spec: ModelSpec) -> str:
    expected = [*spec.entities, *spec.request]
    missing = [key for key in expected if key not in instance]
    unknown = sorted(key for key in instance if key not in expected)
    problems = []
    if missing:
        problems.append(f"lacks {', '.join(missing)}")
    if unknown:
        problems.append(f"has unknown {', '.join(key if _is_utf8(key) else ascii(key) for key in unknown)}"[:200])
    kinds = [*spec.entities, *(f"{key} ({kind})" for key, kind in spec.request.items())]
    return f"instances[{number}] {' and '.join(problems)}; expected exactly {', '.join(kinds)}"


def _key_parser(kind: type[str] | type[int]) -> Callable[[Any, str], Any]:
    return _whole_number if kind is int else _text


def _text(value: Any, field: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _is_utf8(value):
        raise InstanceError(f"{field} is {value!r:.60}; expected text, or null when it is not known")
    return value


def _is_utf8(value: str) -> bool:
    """JSON can spell half of a surrogate pair, which no store can keep."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole_number(value: Any, field: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise InstanceError(f"{field} is {value!r:.60}; expected a whole number, or null when it is not known")
    return value


def _number(value: Any, field: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise InstanceError(f"{field} is {value!r:.60}; expected a finite number, or null when it is not known")


_PARSERS: dict[str, Callable[[Any, str], Any]] = {"timestamp": parse_moment, "string": _text, "number": _number}
