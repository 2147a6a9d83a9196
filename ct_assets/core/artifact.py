"""Models as files: no pickle, the same model the same bytes, and nothing loaded whose digest was not checked."""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

SCHEMA = "schema.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)

REVIEWED = (
    "collections.OrderedDict",
    "ct_assets.core.balance.PriorCorrected",
    "ct_assets.core.early_stopping.EarlyStopped",
    "ct_assets.core.inner_split.TimeOrderedSplit",
    "ct_assets.core.quantiles.QuantileModels",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
)
"""Types beyond skops' own safe ones that hold numbers, text and each other, and run nothing when they are loaded.

`Booster`, `Tree` and `TreePredictor` believe the node numbers that they are given: a file that lies about them can
crash the process. That is why nothing is loaded before its digest was checked.
"""


class ArtifactError(ValueError):
    """A stored model that must not be loaded."""


def dump_model(model: Any, trusted: Sequence[str] = ()) -> bytes:
    """Serialize a fitted estimator with skops, in canonical form.

    skops names the parts of a model by memory address and zips them with the current time. Here the parts are numbered
    in the order of their appearance and the time is fixed, so equal models have equal digests.

    Args:
        model: Fitted estimator.
        trusted: Types beyond skops' own safe ones and `REVIEWED`, reviewed by hand.

    Raises:
        ArtifactError: The model contains a type that is not trusted, or something that cannot be stored.
    """
    import skops.io

    try:
        payload = skops.io.dumps(model)
        unknown = _untrusted(payload, trusted)
    except Exception as error:  # skops raises whatever the part that it cannot store makes it stumble over
        raise ArtifactError(
            f"the model, a {type(model).__name__}, cannot be stored without pickle: {type(error).__name__}: {error}; "
            "replace what skops cannot store, such as a lambda or a class written in place, by a function or class of "
            "a module"
        ) from error
    _refuse(unknown, trusted)
    return _canonical(payload)


def load_model(payload: bytes, digest: str, trusted: Sequence[str] = ()) -> Any:
    """Load a model whose bytes have the expected digest.

    Args:
        payload: Bytes of the artifact.
        digest: SHA-256 that the verdict is bound to.
        trusted: Types beyond skops' own safe ones and `REVIEWED`, reviewed by hand.

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

    _refuse(_untrusted(payload, trusted), trusted)
    return skops.io.loads(payload, trusted=[*REVIEWED, *trusted])


def artifact_digest(payload: bytes) -> str:
    """SHA-256 of an artifact's bytes."""
    return hashlib.sha256(payload).hexdigest()


def _untrusted(payload: bytes, trusted: Sequence[str]) -> list[str]:
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(data=payload)) - {*REVIEWED, *trusted})


def _refuse(unknown: Sequence[str], trusted: Sequence[str]) -> None:
    nameless = [name for name in unknown if "<" in name]
    if nameless:
        raise ArtifactError(
            f"the model contains {', '.join(nameless)}, which cannot be found by its name when the model is loaded; "
            "expected functions and classes of a module: define it there by a name"
        )
    if unknown:
        raise ArtifactError(
            f"the model contains {', '.join(unknown)}, which nobody has reviewed; expected only skops' safe types, "
            f"those that the platform reviewed, and {', '.join(trusted) or 'no others'}: review them and add them to "
            "`trusted_types` of the model's spec"
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
            _add(archive, new, _without_gaps(contents[name]) if name.endswith(".npy") else contents[name])
        _add(archive, SCHEMA, json.dumps(schema, sort_keys=True).encode())
    return target.getvalue()


def _without_gaps(payload: bytes) -> bytes:
    """An array's file with zeros in the gaps between the fields of a record, which hold what was in memory before."""
    array = np.load(io.BytesIO(payload), allow_pickle=False)
    fields = array.dtype.fields
    if fields is None or array.dtype.itemsize == sum(kind.itemsize for kind, *_ in fields.values()):
        return payload
    start = len(payload) - array.nbytes
    # Field by field into zeroed bytes: NumPy's own ways to copy or save records leave the gaps undefined.
    clean = np.zeros(array.nbytes, dtype=np.uint8)
    for name in fields:
        clean.view(array.dtype)[name] = np.frombuffer(payload, array.dtype, offset=start)[name]
    return payload[:start] + clean.tobytes()


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
