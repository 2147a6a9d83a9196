"""`ct`: the command line of the platform."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from ct_assets.lake.paths import default_home

if TYPE_CHECKING:
    import pyarrow as pa

    from ct_assets.core.segments import Line
    from ct_assets.core.spec import ModelSpec
    from ct_assets.lake.contract import Source

app = typer.Typer(
    no_args_is_help=True, help="Continuous training as software-defined assets.", pretty_exceptions_enable=False
)
console = Console(emoji=False)
errors = Console(stderr=True, emoji=False)
_EPOCH = "1970-01-01T00:00:00+00:00"


@app.command()
def demo(
    example: Annotated[str, typer.Option(help="Which recorded example.")] = "flight_delay",
    days: Annotated[int | None, typer.Option(min=1, help="Days to let arrive; else the example's own.")] = None,
    faults: Annotated[bool, typer.Option(help="Plant bad batches.")] = True,
) -> None:
    """Run the main job: a recorded feed, day by day, through the whole loop."""
    from ct_assets.demo.examples import example_of
    from ct_assets.demo.run import run_demo
    from ct_assets.demo.story import tell

    home, chosen = _home(), example_of(example)
    tell(run_demo(home, chosen, days or chosen.days, console, faults), home, chosen, console)


@app.command()
def feed(
    example: Annotated[str, typer.Option(help="Which recording.")] = "flight_delay",
    days: Annotated[int, typer.Option(min=1, help="How many days to land.")] = 1,
    first: Annotated[str, typer.Option(help="First day, YYYY-MM-DD; the day after the last one fed when empty.")] = "",
    every: Annotated[float, typer.Option(min=0, help="Seconds between two days.")] = 0.0,
    faults: Annotated[bool, typer.Option(help="Plant bad batches.")] = False,
) -> None:
    """Land recorded days as an operational system would send them, one file a source and day."""
    from ct_assets.feeds.pace import land_days

    day = None
    for day, written in land_days(_home(), example, days, first, every, faults):
        console.print(f"{day}: {written} file(s) landed")
    if day is None:
        console.print("Nothing landed: the recording has been fed to its end.")


@app.command()
def land(
    source: Annotated[str, typer.Argument(help="The source that the files belong to.")],
    files: Annotated[list[Path], typer.Argument(help="Files of its format.", exists=True, dir_okay=False)],
) -> None:
    """Land files of your own, cut into arrival days by their column `known_at`; all of them, or none."""
    from ct_assets.work import prepare

    sources = _sources(source)
    for file, prepared in [(file, prepare(_home(), sources[source], file)) for file in files]:
        taken = prepared.land(_home())
        known = f"; {taken.known} accepted before" if taken.known else ""
        silent = (
            f"; {taken.silent} day(s) between have no rows, and min_rows=0 would report them" if taken.silent else ""
        )
        console.print(escape(f"{file}: {taken.landed} file(s) landed{known}{silent}"))
        for shortage in _too_few(source, prepared.rows):
            console.print(f"[yellow]warning[/] {escape(shortage)}")


quarantine = typer.Typer(no_args_is_help=True, help="See rejected files, and decide about them.")
app.add_typer(quarantine, name="quarantine")


@quarantine.command("list")
def quarantine_list(
    source: Annotated[str, typer.Argument(help="A source; all when left out.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list, one object a file.")] = False,
) -> None:
    """Show the rejected files that keep a day's contract check red."""
    from ct_assets.lake.lake import Lake
    from ct_assets.lake.quarantine import Quarantine
    from ct_assets.lib.quarantine import listed

    chosen = [each for name, each in _sources(source).items() if source in ("", name)]
    found = [r for each in chosen for r in Quarantine(_home(), each).open(Lake(_home()).dataset(each.name))]
    if as_json:
        typer.echo(json.dumps([{"id": each.id, **vars(each)} for each in found], indent=2))
    else:
        console.print(listed(found) if found else "Nothing waits in quarantine.")


@quarantine.command("release")
def quarantine_release(
    id: Annotated[str, typer.Argument(help="Of the file, as `ct quarantine list` prints it.")],
    reason: Annotated[str, typer.Option(help="Why, in words; it is recorded.")],
) -> None:
    """Take a rejected file in as it is; only types, keys and days still have to be right."""
    from ct_assets.lake.quarantine import find
    from ct_assets.lib.quarantine import release
    from ct_assets.resources.lake import open_ledger

    source, rejection = find(_home(), _sources().values(), id)
    release(_home(), open_ledger(_home()), source, rejection, _told(reason))
    console.print(escape(f"{rejection.file} lies in landing again and is taken in with the next run."))


@quarantine.command("drop")
def quarantine_drop(
    id: Annotated[str, typer.Argument(help="Of the file, as `ct quarantine list` prints it.")],
    reason: Annotated[str, typer.Option(help="Why, in words; it is recorded.")],
) -> None:
    """Give a rejected file's rows up, so that its day goes on without them."""
    from ct_assets.lake.quarantine import find
    from ct_assets.lib.instance import open_instance
    from ct_assets.lib.quarantine import drop
    from ct_assets.resources.lake import open_ledger

    source, rejection = find(_home(), _sources().values(), id)
    with open_instance(_home()) as instance:
        drop(_home(), open_ledger(_home()), instance, source, rejection, _told(reason))
    console.print(escape(f"{rejection.file} is given up; the contract of {rejection.partition} is checked again."))


@app.command()
def run() -> None:
    """Work off all that has landed and all that follows from it, without a daemon."""
    from ct_assets.demo.driving import quiet
    from ct_assets.work import run as work_off

    quiet()
    try:
        succeeded = work_off(_home(), console, errors)
    except KeyboardInterrupt:
        _fail(InterruptedError("interrupted; what was done is kept, and the next `ct run` goes on from there"))
    if not succeeded:
        raise typer.Exit(1)


@app.command()
def status(
    model: Annotated[str, typer.Argument(help="A model; all that have begun when left out.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a model; a list for several.")] = False,
) -> None:
    """Show what arrived, what was decided, and what serves."""
    from ct_assets.defs.models import sources_of
    from ct_assets.lake.summary import summarize
    from ct_assets.resources.lake import open_ledger
    from ct_assets.words import status_tables

    home = _home()
    models = [_known(model)] if model else list(_specs())
    specs = _specs()
    summaries = [summarize(home, open_ledger(home), [s.name for s in sources_of(specs[n])], n) for n in models]
    begun = [summary for summary in summaries if summary["batches"]["landed"]]
    summaries = summaries if model else begun or summaries
    for summary in summaries:
        summary["held"] = _held(home, specs[summary["model"]])
    if as_json:
        typer.echo(json.dumps(summaries[0] if len(summaries) == 1 else summaries, indent=2))
        return
    for summary in summaries:
        for part in status_tables(summary):
            console.print(part)
    ledger = open_ledger(home)
    console.print(
        f"ledger: {ledger.verify():,} records, each following from the one before it; head {ledger.head()[:16]}"
    )


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="A model or its folder; all and the deployment when left out.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each finding, in a list.")] = False,
) -> None:
    """Explain every mistake in the models' folders and the deployment, before anything runs."""
    from dataclasses import asdict

    from ct_assets.doctor import diagnose, tell

    findings = diagnose(_home(), model)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        tell(findings, console)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


@app.command()
def spec() -> None:
    """Print the page of every field of a model's `defs.yaml`, as Markdown."""
    from ct_assets.components.continuous_training import ModelFile
    from ct_assets.core.spec_page import spec_page

    typer.echo(spec_page(ModelFile), nl=False)


@app.command()
def why(
    model: str,
    version: Annotated[str, typer.Argument(help="A version; the champion when left out.")] = "",
    segment: Annotated[str | None, typer.Option(help="A segment of the model.")] = None,
) -> None:
    """Explain in words how a version came to be, and what became of it."""
    from ct_assets.resources.lake import open_ledger
    from ct_assets.words import explain

    try:
        line, home = _line(model, segment), _home()
        typer.echo(explain(open_ledger(home), line.name, version))
    except LookupError as error:
        _fail(error)
    held = _held(home, _specs()[model]).get(line.name)
    if held:
        typer.echo(f"Held: {held}.")


@app.command()
def retrain(
    model: str,
    reason: Annotated[str, typer.Option(help="Why, in words; it is recorded.")],
    segment: Annotated[str | None, typer.Option(help="A segment of the model.")] = None,
    now: Annotated[bool, typer.Option("--run", help="Work it off here, as `ct run` does, without a daemon.")] = False,
) -> None:
    """Ask for a retrain: the newest decision is made again at once, whether or not something arrives."""
    from ct_assets.core.ledger import DECISIONS, REQUEST
    from ct_assets.resources.lake import open_ledger

    ledger, line = open_ledger(_home()), _line(model, segment).name
    if segment and line not in ledger.models():
        _fail(LookupError(f"nothing was decided about segment {segment!r} of {model}; the pooled model serves it"))
    decided = ledger.newest(DECISIONS, line)
    record = ledger.append(REQUEST, line, decided.as_of if decided else _EPOCH, {"reason": _told(reason)})
    if decided is None:
        told = f"The first retrain decision of {line} will take it up."
    else:
        told = (
            f"{line} is decided about again as of {decided.as_of[:16]}: by the daemon within seconds, or by `ct run`."
        )
    console.print(escape(f"Recorded as number {record.seq}. {told}"))
    if now:
        run()


@app.command()
def rollback(
    model: str,
    reason: Annotated[str, typer.Option(help="Why, in words; it is recorded.")],
    to: Annotated[str, typer.Option(help="Release to return to; the previous one when left out.")] = "",
    segment: Annotated[str | None, typer.Option(help="A segment of the model.")] = None,
) -> None:
    """Move the champion back to an earlier release; a segment's first one back to the pooled model."""
    from ct_assets.lib.promotion import rollback as roll_back
    from ct_assets.resources.lake import LakeResource
    from ct_assets.resources.registry import RegistryResource

    lake = LakeResource(home=str(_home()))
    try:
        line = _line(model, segment)
        release = roll_back(lake, RegistryResource(home=lake.home), line, _told(reason), to or None)
    except (ValueError, FileNotFoundError) as error:
        _fail(error)
    serves = f"{line.name} is served by version {release.version} of {release.model} (as of {release.as_of[:10]})"
    console.print(escape(f"{serves}; servers load it within seconds: {reason}"))
    if held := _held(_home(), _specs()[model]).get(line.name):
        console.print(escape(f"Automation promotes nothing meanwhile: {held}. `ct release-hold` ends that."))


@app.command()
def promote(
    model: str,
    version: Annotated[str, typer.Option(help="The version; its verdict has to have passed, against what serves now.")],
    reason: Annotated[str, typer.Option(help="Why, in words; it is recorded.")],
    segment: Annotated[str | None, typer.Option(help="A segment of the model.")] = None,
) -> None:
    """Promote what automation leaves to a person: an experiment, or a challenger while a rollback holds."""
    from ct_assets.lib.training import promote_judged
    from ct_assets.resources.lake import LakeResource
    from ct_assets.resources.registry import RegistryResource

    lake = LakeResource(home=str(_home()))
    registry = RegistryResource(home=lake.home)
    line = _line(model, segment)
    try:
        chosen = registry.version(line.registered, version)
        release = promote_judged(lake, registry, _specs()[model], line, chosen, _told(reason))
    except (ValueError, LookupError, FileNotFoundError) as error:
        _fail(error)
    console.print(escape(f"{line.name} is served by version {release.version} (as of {release.as_of[:10]}): {reason}"))


@app.command(name="release-hold")
def release_hold(
    model: str,
    reason: Annotated[str, typer.Option(help="Why, in words; it is recorded.")],
    segment: Annotated[str | None, typer.Option(help="A segment of the model.")] = None,
) -> None:
    """Let automation promote again after a rollback, before the hold ends by itself."""
    from ct_assets.lib.promotion import release_hold as release
    from ct_assets.resources.lake import LakeResource

    line = _line(model, segment)
    try:
        record = release(LakeResource(home=str(_home())), _specs()[model], line, _told(reason))
    except ValueError as error:
        _fail(error)
    told = f"Recorded as number {record.seq}. The next challenger of {line.name} that passes the gate is promoted."
    console.print(escape(told))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    max_body_mb: Annotated[float, typer.Option(min=0.001, help="Largest body of a request, in MB (2^20 bytes).")] = 8.0,
    request_seconds: Annotated[float, typer.Option(min=0.1, help="Longest time for headers, and for a body.")] = 30.0,
) -> None:
    """Serve every model's champion over HTTP."""
    import uvicorn

    from ct_assets.defs.models import load_sources
    from ct_assets.serving.app import create_app
    from ct_assets.serving.bodies import server_config

    serving = create_app(
        _specs(),
        _home(),
        sources=load_sources(),
        max_body_bytes=int(max_body_mb * 2**20),
        request_seconds=request_seconds,
    )
    uvicorn.Server(server_config(serving, request_seconds, host=host, port=port, log_level="warning")).run()


@app.command()
def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Dagster UI.")] = 3000,
    serve_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the prediction server.")] = 8000,
    every: Annotated[float, typer.Option(help="Seconds between two arriving days; 0 for no feeder.")] = 60.0,
) -> None:
    """Run the Dagster UI and daemon, the feeder and the prediction server together."""
    from ct_assets.develop import develop

    develop(_home(), port, serve_port, every, console)


def _specs() -> "dict[str, ModelSpec]":
    from ct_assets.defs.models import load_specs

    return load_specs()


def _sources(source: str = "") -> "dict[str, Source]":
    from ct_assets.core.strict import unknown
    from ct_assets.defs.models import load_sources

    sources = {each.name: each for each in load_sources()}
    if source and source not in sources:
        _fail(LookupError(unknown("source", source, sources)))
    return sources


def _too_few(source: str, rows: "pa.Table") -> list[str]:
    """What the models' rules ask for, and a file of their events does not bring."""
    from ct_assets.core.volume import shortages
    from ct_assets.lib.volume import volume_in

    measured = [(spec, volume_in(spec, rows)) for spec in _specs().values() if spec.events.source == source]
    return [
        f"{spec.name}, {each.field}: {each.found}; counted on {volume.measured_on}; {each.remedy}"
        for spec, volume in measured
        if volume is not None
        for each in shortages(spec, volume)
    ]


def _known(model: str) -> str:
    if model not in _specs():
        _fail(LookupError(f"no model {model!r}; models: {', '.join(_specs())}"))
    return model


def _held(home: Path, spec: "ModelSpec") -> dict[str, str]:
    """The rollbacks that hold, by the line that they hold."""
    from ct_assets.core.segments import Line
    from ct_assets.lake.holds import hold_of
    from ct_assets.lake.moving import event_time
    from ct_assets.lake.releases import Releases
    from ct_assets.resources.lake import open_ledger

    ledger = open_ledger(home)
    lines = [line for line in map(Line.named, ledger.models()) if line.model == spec.name]
    holds = {line.name: hold_of(Releases(home, line, ledger), spec.gate, event_time(ledger, line)) for line in lines}
    return {name: str(hold) for name, hold in holds.items() if hold is not None}


def _line(model: str, segment: str | None) -> "Line":
    """The line that a command is about: an empty segment, as of a variable that is not set, is not the whole model."""
    from ct_assets.core.segments import Line

    spec = _specs()[_known(model)]
    if segment is not None and spec.segment_by is None:
        _fail(LookupError(f"model {model} has no segments, as its spec has no segment_by; leave --segment out"))
    if segment == "":
        _fail(
            ValueError(
                f"--segment is empty; expected a value of {spec.segment_by}, or no --segment for the model's own"
            )
        )
    return Line(model, segment)


def _told(reason: str) -> str:
    if not reason.strip():
        _fail(ValueError('the reason is empty; expected words that explain it later: --reason "labels were wrong"'))
    return reason.strip()


def _fail(error: Exception) -> NoReturn:
    errors.print(f"[red]{escape(str(error))}[/]")
    raise typer.Exit(1)


def _home() -> Path:
    home = default_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _fail(
            OSError(
                f"CT_HOME is {home}, which is no folder and cannot become one ({error.strerror}); expected a folder"
            )
        )
    os.environ["CT_HOME"] = str(home)
    return home


def main() -> None:
    """Entry point: an error is one sentence, and a trace with `CT_TRACE=1`."""
    try:
        app()
    except Exception as error:
        if os.environ.get("CT_TRACE"):
            raise
        errors.print(f"[red]{escape(_sentence(error))}[/]")
        raise SystemExit(1) from None


def _sentence(error: Exception) -> str:
    """What an error says; with its kind where it was not raised to be read by a user."""
    if isinstance(error, (ValueError, LookupError, OSError, RuntimeError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error} (an error of the program; CT_TRACE=1 shows where)"


if __name__ == "__main__":
    main()
