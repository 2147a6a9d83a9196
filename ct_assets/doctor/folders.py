"""Reading models' folders, however broken: what can be read of each, and what cannot, with file and line."""

import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ct_assets.components.continuous_training import ModelFile
from ct_assets.core.imports import imported
from ct_assets.core.mistakes import mistakes
from ct_assets.core.spec import ModelSpec
from ct_assets.defs.models import COMPONENT
from ct_assets.lake.contract import Source
from ct_assets.lib.diagnosis import Finding
from ct_assets.lib.features import FeatureSet

LOADING = "loading"
T = TypeVar("T")


@dataclass(frozen=True)
class Folder:
    """A model's folder as far as it could be read.

    Attributes:
        name: The model's name; the folder's where there is no spec.
        file: Where the spec is written.
        spec: The model; None when it could not be read.
        feature_sets: Those that could be imported.
        sources: Those that come with the model, likewise.
        findings: What could not be read, and why.
    """

    name: str
    file: str
    spec: ModelSpec | None = None
    feature_sets: Sequence[FeatureSet] = ()
    sources: Sequence[Source] = ()
    findings: Sequence[Finding] = field(default_factory=tuple)


def folders_in(models: Path) -> list[Path]:
    """The models' folders."""
    return sorted(p for p in models.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))


def read_folder(folder: Path, package: str) -> Iterator[Folder]:
    """What a folder says about its models: one of a `spec.py`, and one of each document of a `defs.yaml`."""
    if (folder / "defs.yaml").exists():
        yield from _from_yaml(folder / "defs.yaml")
    elif (folder / "spec.py").exists():
        yield _from_python(folder, package)
    else:
        told = (
            f"neither defs.yaml nor spec.py; found {', '.join(sorted(p.name for p in folder.iterdir())) or 'nothing'}"
        )
        remedy = "start one: dg scaffold defs ct_assets.components.ContinuousTraining models/<name>"
        yield Folder(
            folder.name, f"{folder.name}/", findings=[Finding("error", LOADING, folder.name, told, "", remedy)]
        )


def _from_python(folder: Path, package: str) -> Folder:
    file = f"{folder.name}/spec.py"
    try:
        spec = import_module(f"{package}.{folder.name}.spec").SPEC
    except Exception as error:
        return Folder(folder.name, file, findings=[*_import_mistakes(file, error, folder)])
    if not isinstance(spec, ModelSpec):
        told = f"SPEC is a {type(spec).__name__}"
        return Folder(folder.name, file, findings=[Finding("error", LOADING, file, told, "a ModelSpec")])
    try:
        named = vars(import_module(f"{package}.{folder.name}.defs")).values() if (folder / "defs.py").exists() else ()
    except Exception as error:
        return Folder(spec.name, file, spec, findings=[*_import_mistakes(f"{folder.name}/defs.py", error, folder)])
    return Folder(spec.name, file, spec, _in_module(named, FeatureSet), _in_module(named, Source))


def _in_module(named: Iterable[Any], kind: type[T]) -> list[T]:
    """What the names of a module stand for, each one object or a sequence of them."""
    several = [each if type(each) in (list, tuple) else [each] for each in named]
    return [each for members in several for each in members if isinstance(each, kind)]


def _from_yaml(path: Path) -> Iterator[Folder]:
    file = f"{path.parent.name}/{path.name}"
    try:
        text = path.read_text()
        documents = list(zip(yaml.compose_all(text, yaml.SafeLoader), yaml.safe_load_all(text), strict=True))
    except (yaml.YAMLError, UnicodeError) as error:
        yield Folder(path.parent.name, file, findings=[_not_yaml(file, error)])
        return
    for node, document in documents:
        if not isinstance(document, dict) or not {"type", "attributes"} <= document.keys():
            told = f"keys {', '.join(map(str, document))}" if isinstance(document, dict) else f"{document!r}"
            found = Finding("error", LOADING, file, told, f"`type: ct_assets.components.{COMPONENT}` and `attributes`")
            yield Folder(path.parent.name, file, findings=[found])
        elif str(document["type"]).rpartition(".")[2] == COMPONENT:
            yield _from_document(path, file, node, document["attributes"])


def _from_document(path: Path, file: str, node: yaml.Node, attributes: Any) -> Folder:
    name = str(attributes.get("name", path.parent.name)) if isinstance(attributes, dict) else path.parent.name
    twice = [
        Finding("error", LOADING, f"{file}:{line}", f"{key!r} stands there twice", "each key once", "delete one")
        for key, line in _repeated(node)
    ]
    try:
        written = ModelFile.model_validate(attributes)
    except ValidationError as error:
        return Folder(name, file, findings=[*twice, *_spec_mistakes(file, error, ModelFile, node)])
    sets: list[FeatureSet] = []
    sources: list[Source] = []
    broken: list[Finding] = []
    for attribute in ("own_sources", "feature_sets", "own_feature_sets"):
        for import_path in getattr(written, attribute):
            try:
                if attribute == "own_sources":
                    sources += imported(attribute, [import_path], Source)
                else:
                    sets += imported(attribute, [import_path], FeatureSet)
            except Exception as error:
                broken += _import_mistakes(f"{file}: {attribute}", error, path.parent)
    return Folder(written.name, file, written.spec, sets, sources, [*twice, *broken])


def _not_yaml(file: str, error: Exception) -> Finding:
    mark = getattr(error, "problem_mark", None)
    where = f"{file}:{mark.line + 1}" if mark else file
    told = getattr(error, "problem", None) or str(error)
    return Finding("error", LOADING, where, f"not YAML: {told}", "keys and values, indented alike", "mend that line")


def _repeated(node: yaml.Node) -> Iterator[tuple[str, int]]:
    """Keys that stand twice in a mapping, of which YAML would take the last, with their lines."""
    if isinstance(node, yaml.MappingNode):
        seen: Counter[str] = Counter()
        for key, value in node.value:
            seen[key.value] += 1
            if seen[key.value] == 2:
                yield str(key.value), key.start_mark.line + 1
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated(value)


def _spec_mistakes(file: str, error: ValidationError, kind: type[BaseModel], node: yaml.Node) -> Iterator[Finding]:
    for mistake in mistakes(error, kind):
        where = f"{file}:{_line(node, ('attributes', *mistake.path))}: {mistake.field}"
        yield Finding("error", LOADING, where, mistake.found, mistake.expected)


def _line(node: yaml.Node, path: tuple[str | int, ...]) -> int:
    """The line of a field, or of the innermost one around it that is there."""
    line = node.start_mark.line
    for part in path:
        if isinstance(node, yaml.MappingNode):
            step = next(((k.start_mark.line, v) for k, v in node.value if k.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            step = node.value[part].start_mark.line, node.value[part]
        else:
            step = None
        if step is None:
            break
        line, node = step
    return int(line) + 1


def _import_mistakes(where: str, error: Exception, folder: Path) -> Iterator[Finding]:
    """What went wrong in a team's Python, with file and line."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    place = _place(cause, folder) or where
    if isinstance(cause, ValidationError):
        for mistake in mistakes(cause, ModelSpec):
            yield Finding("error", LOADING, f"{place}: {cause.title}.{mistake.field}", mistake.found, mistake.expected)
    elif error is not cause or isinstance(error, ValueError):
        yield Finding("error", LOADING, place, str(error))
    else:
        yield not_loaded(place, error)


def not_loaded(where: str, error: Exception) -> Finding:
    """A module that raised something when it was imported."""
    told = error.msg if isinstance(error, SyntaxError) else str(error)
    return Finding("error", LOADING, where, f"{type(error).__name__}: {told}", "a module that loads", "mend that line")


def _place(error: BaseException, folder: Path) -> str:
    """File and line below the folder where it happened; empty when it happened elsewhere."""
    if isinstance(error, SyntaxError) and error.filename:
        frames = [(error.filename, error.lineno)]
    else:
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    inside = [(Path(file), line) for file, line in frames if folder in Path(file).parents]
    return f"{inside[-1][0].relative_to(folder.parent)}:{inside[-1][1]}" if inside else ""
