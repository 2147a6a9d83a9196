"""`ct doctor`: examines every model's folder, however broken, and the deployment."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from ct_assets.components.continuous_training import shared_sources
from ct_assets.core.strict import unknown
from ct_assets.doctor.folders import LOADING, Folder, folders_in, not_loaded, read_folder
from ct_assets.lake.contract import Source
from ct_assets.lake.declaration import DeclarationError
from ct_assets.lib.diagnosis import Deployment, Examined, Finding, examine, examine_deployment
from ct_assets.lib.diagnosis.declared import Declared, declared
from ct_assets.resources.feast import definitions
from ct_assets.resources.registry import RegistryResource

MODELS = Path(__file__).parents[1] / "defs" / "models"
PACKAGE = "ct_assets.defs.models"
_COLORS = {"ok": "green", "skipped": "dim", "warning": "yellow", "error": "red"}


def diagnose(home: Path, model: str = "", models: Path = MODELS, package: str = PACKAGE) -> list[Finding]:
    """Examine every model's folder, and the deployment.

    Args:
        home: `$CT_HOME`.
        model: Name of a model or of its folder, to examine it alone; all of them and the deployment when empty.
        models: Folder of the models' folders.
        package: What it is imported as.

    Raises:
        LookupError: There is no such model.
    """
    folders = [folder for path in folders_in(models) for folder in read_folder(path, package)]
    chosen = [f for f in folders if not model or model in (f.name, Path(f.file).parent.name)]
    if model and not chosen:
        raise LookupError(unknown("model", model, {f.name for f in folders}))
    sources, broken = _sources(folders)
    repository, more = _repository()
    found = [*broken, *more, *_same_names(folders)]
    for folder in chosen:
        found += (replace(finding, model=folder.name) for finding in folder.findings)
        if folder.spec is not None:
            found += examine(Examined(folder.spec, sources, folder.feature_sets, repository, home, folder.file))
    if not model:
        uri = RegistryResource(home=str(home)).uri
        found += examine_deployment(Deployment(home, sources, uri))
    return found


def _sources(folders: Iterable[Folder]) -> tuple[Mapping[str, Source], list[Finding]]:
    """The contracts of the deployment: those that several models read, and those that come with one."""
    own = {source.name: source for folder in folders for source in folder.sources}
    try:
        return own | {source.name: source for source in shared_sources()}, []
    except Exception as error:
        return own, [not_loaded("ct_assets/defs/sources/contracts.py", error)]


def _repository() -> tuple[Declared | None, list[Finding]]:
    """What Feast's definitions declare."""
    try:
        return declared(definitions()), []
    except DeclarationError as error:
        return None, [Finding("error", LOADING, "feature views", str(error))]
    except Exception as error:
        return None, [not_loaded("feature_repo", error)]


def _same_names(folders: Iterable[Folder]) -> Iterator[Finding]:
    counted = Counter(folder.name for folder in folders if folder.spec is not None)
    for name, times in counted.items():
        if times > 1:
            where = ", ".join(folder.file for folder in folders if folder.name == name)
            yield Finding("error", LOADING, where, f"{times} models are called {name!r}", "a name of its own for each")


def tell(findings: Sequence[Finding], console: Console) -> None:
    """Print what was found, for each model and for the deployment, worst last."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.model, []).append(finding)
    for name, found in groups.items():
        console.print(f"[bold]{escape(name) if name else 'deployment'}[/]")
        fine = ", ".join(finding.check for finding in found if finding.level == "ok")
        if fine:
            console.print(Padding(f"[green]ok[/] {escape(fine)}", (0, 0, 0, 2)))
        for level in ("skipped", "warning", "error"):
            for finding in (f for f in found if f.level == level):
                console.print(Padding(_told(finding), (0, 0, 0, 2)))
    counts = Counter(finding.level for finding in findings)
    console.print(", ".join(f"{counts[level]} {level}" for level in ("error", "warning", "skipped", "ok")))


def _told(finding: Finding) -> RenderableType:
    head = f"[{_COLORS[finding.level]}]{finding.level}[/] [bold]{escape(finding.where)}[/]"
    if finding.level == "skipped":
        return f"{head}: {escape(finding.found)}"
    parts = Table.grid(padding=(0, 1))
    parts.add_column(no_wrap=True)
    parts.add_column(overflow="fold")
    for name, text in (("found", finding.found), ("expected", finding.expected), ("do", finding.remedy)):
        if text:
            parts.add_row(name, escape(text))
    return Group(head, Padding(parts, (0, 0, 0, 4)))
