"""Models as files: no pickle, the same model the same bytes, and nothing loaded whose digest was not checked."""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

SCHEMA = "schema.json"
#: Types of our own that hold nothing but estimators.
_OURS = ("ct_assets.core.quantiles.QuantileModels",)
_EPOCH = (1980, 1, 1, 0, 0, 0)


class ArtifactError(ValueError):
    """A stored model that must not be loaded."""


def dump_model(model: Any, trusted: Sequence[str] = ()) -> bytes:
    """Serialize a fitted estimator with skops, in canonical form.

    skops names the parts of a model by memory address and zips them with the current time. Here the parts are numbered
    in the order of their appearance and the time is fixed, so equal models have equal digests.

    Args:
        model: Fitted estimator.
        trusted: Types beyond skops' own safe ones, reviewed by hand.

    Raises:
        ArtifactError: The model contains a type that is not trusted.
    """
    import skops.io

    payload = skops.io.dumps(model)
    _refuse_unknown_types(payload, trusted)
    return _canonical(payload)


def load_model(payload: bytes, digest: str, trusted: Sequence[str] = ()) -> Any:
    """Load a model whose bytes have the expected digest.

    Args:
        payload: Bytes of the artifact.
        digest: SHA-256 that the verdict is bound to.
        trusted: Types beyond skops' own safe ones, reviewed by hand.

    Raises:
        ArtifactError: The bytes have another digest, or contain a type that is not trusted.
    """
    found = artifact_digest(payload)
    if found != digest:
        raise ArtifactError(
            f"artifact has digest {found[:12]}, expected {digest[:12]}: it is not the model that was judged; "
            "restore it, or roll back to another release"
        )
    import skops.io

    _refuse_unknown_types(payload, trusted)
    return skops.io.loads(payload, trusted=[*trusted, *_OURS])


def artifact_digest(payload: bytes) -> str:
    """SHA-256 of an artifact's bytes."""
    return hashlib.sha256(payload).hexdigest()


def _refuse_unknown_types(payload: bytes, trusted: Sequence[str]) -> None:
    import skops.io

    unknown = sorted(set(skops.io.get_untrusted_types(data=payload)) - {*trusted, *_OURS})
    if unknown:
        raise ArtifactError(
            f"the model contains {', '.join(unknown)}, which nobody has reviewed; expected only skops' safe types and "
            f"{', '.join(trusted) or 'no others'}: review them and add them to `trusted_types` of the model's spec"
        )


def _canonical(payload: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        schema = json.loads(archive.read(SCHEMA))
        contents = {name: archive.read(name) for name in archive.namelist() if name != SCHEMA}
    numbers: dict[int, int] = {}
    names: dict[str, str] = {}
    _number(schema, numbers, names)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, new in sorted(names.items(), key=lambda item: item[1]):
            _add(archive, new, contents[name])
        _add(archive, SCHEMA, json.dumps(schema, sort_keys=True).encode())
    return target.getvalue()


def _number(node: Any, numbers: dict[int, int], names: dict[str, str]) -> None:
    """Replace addresses and file names by their order of appearance, in place."""
    if isinstance(node, list):
        for child in node:
            _number(child, numbers, names)
    elif isinstance(node, dict):
        if "__id__" in node:
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers))
        if isinstance(node.get("file"), str):
            old = node["file"]
            suffix = old.rpartition(".")[2]
            node["file"] = names.setdefault(old, f"{len(names):06d}.{suffix}")
        for key in sorted(node):
            _number(node[key], numbers, names)


def _add(archive: zipfile.ZipFile, name: str, payload: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, payload)
