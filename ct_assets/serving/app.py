"""The HTTP app: predictions from the champion release, on features from Feast's online store."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ct_assets.core.spec import ModelSpec
from ct_assets.lake.contract import Source
from ct_assets.serving.bodies import MAX_BYTES, SECONDS, BodyLimits
from ct_assets.serving.champion import Champions, Refusal
from ct_assets.serving.events import add_event_routes, build_events
from ct_assets.serving.live import Live, Outcome
from ct_assets.serving.metrics import Metrics
from ct_assets.serving.pages import add_pages
from ct_assets.serving.sampling import EVERY_SECONDS, Sampler
from ct_assets.serving.schemas import (
    InstanceError,
    InstanceReason,
    ModelStatus,
    PartialResponse,
    PredictRequest,
    PredictResponse,
    RefusedRelease,
    SegmentServedBy,
    ServedBy,
    ServedRelease,
    answers,
    parse_at,
    parse_instances,
)
from ct_assets.serving.strict_json import StrictRoute
from ct_assets.stores.unavailable import OnlineStoreUnavailable

_PREFIX, _VERB = "/v1/models/", ":predict"


def create_app(
    specs: Mapping[str, ModelSpec],
    home: Path,
    poll_seconds: float = 1.0,
    sources: Sequence[Source] = (),
    *,
    max_body_bytes: int = MAX_BYTES,
    request_seconds: float = SECONDS,
    logged_every_seconds: float = EVERY_SECONDS,
) -> FastAPI:
    """Build the server.

    Args:
        specs: The models to serve, by name.
        home: `$CT_HOME`: releases, verdicts, ledger, the online store, and MLflow unless its URI is set.
        poll_seconds: How often the ledger and the registries are looked at.
        sources: Those with an `event_type` take events.
        max_body_bytes: Largest body of a request.
        request_seconds: Longest time that a body may take to arrive.
        logged_every_seconds: Mean time between two predictions of a model whose features are logged.
    """
    metrics = Metrics()
    champions = Champions(specs, home, poll_seconds, metrics)
    sampler = Sampler(home, logged_every_seconds)
    events = build_events(home, sources)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        champions.start()
        sampler.start()
        if events:
            events.start()
        try:
            yield
        finally:
            champions.stop()
            sampler.stop()
            if events:
                events.stop()

    app = FastAPI(title="ct_assets", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.route_class = StrictRoute
    app.add_middleware(BodyLimits, max_bytes=max_body_bytes, seconds=request_seconds)
    app.add_middleware(_Measured, metrics=metrics, models=frozenset(specs))
    app.add_exception_handler(RequestValidationError, _unreadable)
    _add_model_routes(app, champions, metrics, sampler)
    if events:
        add_event_routes(app, events, metrics)
    _add_operations(app, champions, metrics)
    add_pages(app, list(specs), home / "reports")
    app.mount("/reports", _Reports(directory=home / "reports", html=True, check_dir=False), name="reports")
    return app


def _add_model_routes(app: FastAPI, champions: Champions, metrics: Metrics, sampler: Sampler) -> None:
    @app.post(
        f"{_PREFIX}{{name}}{_VERB}",
        response_model=PredictResponse,
        responses={422: {"model": PartialResponse}, 503: {"model": PartialResponse}},
    )
    def predict(name: str, body: PredictRequest) -> PredictResponse | JSONResponse:
        """Predict for up to 1000 instances with the champion; the answers' fields are those of the model's task.

        When some instances have no prediction the answer is an error that names each of them, with the predictions of
        the others.
        """
        _known(champions, name)
        # The one look at what serves: a swap during this request does not concern it.
        serving = champions.serving(name)
        if serving is None:
            raise HTTPException(503, f"{name} cannot predict: {champions.waiting_for(name)}")
        live = serving.own
        try:
            given, now = parse_instances(live.spec, live.features.key_types, body.instances), datetime.now(UTC)
            at = parse_at(body.at, now)
            outcome = serving.predict(given, at)
        except InstanceError as error:
            raise HTTPException(422, f"{name}: {error}") from error
        except OnlineStoreUnavailable as error:
            metrics.online_store_up.set(0)
            raise HTTPException(503, f"{name} cannot predict: {error}") from error
        metrics.online_store_up.set(1)
        metrics.answered(name, outcome)
        sampler.offer(live, given, outcome.features, at, now)
        if outcome.problems:
            return _partial(name, live, outcome)
        return PredictResponse(
            model=name,
            version=live.release.version,
            release=_bound(live),
            predictions=answers(live.task, outcome.predictions, outcome.features.times),
            segments={s: _of_segment(serving.segments[s]) for s in dict.fromkeys(outcome.served_by) if s is not None},
            served_by=outcome.served_by if live.spec.segment_by else [],
            fallbacks=[InstanceReason(instance=n, reason=reason) for n, reason in sorted(outcome.fallbacks.items())],
        )

    @app.get(f"{_PREFIX}{{name}}")
    def status(name: str) -> ModelStatus:
        """What serves a model, and what was refused last."""
        _known(champions, name)
        serving, refusal = champions.serving(name), champions.refusal(name)
        return ModelStatus(
            model=name,
            release=_served(serving.own) if serving else None,
            waiting_for=champions.waiting_for(name),
            last_refusal=_refused(refusal) if refusal else None,
            problems=champions.problems(name),
            segments={segment: _served(live) for segment, live in serving.segments.items()} if serving else {},
            segment_refusals={segment: _refused(each) for segment, each in champions.segment_refusals(name).items()},
        )


def _add_operations(app: FastAPI, champions: Champions, metrics: Metrics) -> None:
    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> JSONResponse:
        """Every model that has a champion has it loaded and its features can be read; what the others wait for."""
        waiting = {name: reason for name in champions.specs if (reason := champions.waiting_for(name))}
        problem = champions.features_problem()
        metrics.online_store_up.set(problem is None)
        ready = champions.ready() and problem is None
        answer = {"ready": ready, "waiting": waiting, "online_store": problem, "problems": champions.common_problems()}
        return JSONResponse(answer, 200 if ready else 503)

    @app.get("/metrics")
    def exposition() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _known(champions: Champions, name: str) -> None:
    if name not in champions.specs:
        served = ", ".join(sorted(champions.specs)) or "none"
        raise HTTPException(404, f"no model {name!r} here; models: {served}")


def _partial(name: str, live: Live, outcome: Outcome) -> JSONResponse:
    """An error with each instance that has no prediction, and the predictions of the others."""
    kept = [n for n in range(len(outcome.predictions)) if n not in outcome.problems]
    given = answers(live.task, outcome.predictions[kept], [outcome.features.times[n] for n in kept])
    by_instance = dict(zip(kept, given, strict=True))
    errors = [InstanceReason(instance=n, reason=p.reason) for n, p in sorted(outcome.problems.items())]
    shown = "; ".join(f"instances[{error.instance}]: {error.reason}" for error in errors[:3])
    more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
    # Nothing that the caller could change: what is missing is here.
    ours = not kept and all(problem.of_features for problem in outcome.problems.values())
    body = PartialResponse(
        detail=f"{name}: {shown}{more}",
        errors=errors,
        predictions=[by_instance.get(n) for n in range(len(outcome.predictions))],
    )
    return JSONResponse(body.model_dump(mode="json", by_alias=True), 503 if ours else 422)


def _bound(live: Live) -> ServedBy:
    return ServedBy(artifact_digest=live.release.artifact_digest, verdict=live.release.verdict)


def _of_segment(live: Live) -> SegmentServedBy:
    return SegmentServedBy(version=live.release.version, **_bound(live).model_dump())


def _refused(refusal: Refusal) -> RefusedRelease:
    return RefusedRelease(version=refusal.version, reason=refusal.reason, at=refusal.at)


def _served(live: Live) -> ServedRelease:
    release = live.release
    return ServedRelease(
        version=release.version,
        artifact_digest=release.artifact_digest,
        verdict=release.verdict,
        training_set=release.training_set,
        feature_service=release.feature_service,
        feature_versions=release.feature_versions,
        as_of=release.as_of,
        loaded_at=live.loaded_at,
    )


def _unreadable(_: Request, error: Exception) -> JSONResponse:
    """One sentence instead of FastAPI's list, as every other error of this API has."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:5]]
    expected = 'expected a body of type application/json, as {"instances": [{...}], "at": "..."} with "at" optional'
    return JSONResponse({"detail": f"{'; '.join(problems)}; {expected}"}, 422)


class _Reports(StaticFiles):
    """Static files from a folder that may appear later."""

    async def check_config(self) -> None:
        """Accept that the folder is not there; its files are then not found."""


class _Measured:
    """Counts and times prediction requests, from the first byte read to the last one sent."""

    def __init__(self, app: ASGIApp, metrics: Metrics, models: frozenset[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] != "http" or not (path.startswith(_PREFIX) and path.endswith(_VERB)):
            await self.app(scope, receive, send)
            return
        name = path.removeprefix(_PREFIX).removesuffix(_VERB)
        seen: dict[str, Any] = {"status": 500}

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self.app(scope, receive, watch)
        finally:
            # Any other name would let a caller make labels without end.
            labels = (name if name in self.models else "(unknown)", str(seen["status"]))
            self.metrics.requests.labels(*labels).inc()
            self.metrics.latency.labels(*labels).observe(time.perf_counter() - started)
