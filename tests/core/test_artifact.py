import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import FunctionTransformer
from worlds_of_core import INPUTS, examples, logistic, spec_with

from ct_assets.core.artifact import ArtifactError, artifact_digest, dump_model, load_model
from ct_assets.core.inputs import model_inputs

SPEC = spec_with(INPUTS)
PRINT_DIGEST = """
from worlds_of_core import INPUTS, examples, logistic, spec_with
from ct_assets.core.artifact import artifact_digest, dump_model
from ct_assets.core.inputs import model_inputs
from ct_assets.core.spec import EstimatorSpec
from ct_assets.defs.models.flight_delay.spec import SPEC
rows = examples()
inputs = model_inputs(spec_with(INPUTS), rows)
estimator = EstimatorSpec(path=SPEC.estimator.path, params={"max_iter": 3})
trees = estimator.build(SPEC.seed).fit(inputs.assign(origin="JFK"), rows["label"])
linear = logistic().fit(inputs, rows["label"])
print(artifact_digest(dump_model(linear)), artifact_digest(dump_model(trees, SPEC.trusted_types)))
"""


@pytest.fixture(scope="module")
def payload() -> bytes:
    return dump_model(fitted())


def fitted():
    return logistic().fit(model_inputs(SPEC, examples()), examples()["label"])


def test_the_same_model_has_the_same_bytes_in_every_process() -> None:
    folder = str(Path(__file__).parent)
    started = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": folder}
        command = [sys.executable, "-c", PRINT_DIGEST]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    found = {process.communicate(timeout=900)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(found) == 1
    linear, trees = found.pop().split()
    assert len({linear, trees}) == 2


def test_a_loaded_model_is_the_model_that_was_stored(payload: bytes) -> None:
    model = load_model(payload, artifact_digest(payload))
    inputs = model_inputs(SPEC, examples(50, 8))
    np.testing.assert_array_equal(model.predict_proba(inputs), fitted().predict_proba(inputs))


def test_storing_a_loaded_model_gives_the_same_bytes(payload: bytes) -> None:
    assert dump_model(load_model(payload, artifact_digest(payload))) == payload


def test_changed_bytes_are_refused(payload: bytes) -> None:
    tampered = payload[:-30] + bytes([payload[-30] ^ 1]) + payload[-29:]
    with pytest.raises(ArtifactError, match=f"expected {artifact_digest(payload)[:12]}.*not the model that was judged"):
        load_model(tampered, artifact_digest(payload))


def test_another_model_is_refused(payload: bytes) -> None:
    other = dump_model(logistic(C=0.01).fit(model_inputs(SPEC, examples()), examples()["label"]))
    with pytest.raises(ArtifactError, match="roll back to another release"):
        load_model(other, artifact_digest(payload))


def a_function_of_mine(values):
    return values


def test_a_type_that_nobody_reviewed_is_refused_by_its_name() -> None:
    with pytest.raises(ArtifactError, match=r"a_function_of_mine, which nobody has reviewed.*trusted_types"):
        dump_model(FunctionTransformer(a_function_of_mine))


def test_a_lambda_is_refused_with_what_to_do() -> None:
    with pytest.raises(ArtifactError, match="test_artifact.<lambda>, which cannot be found by its name.*of a module"):
        dump_model(FunctionTransformer(lambda values: values))


def test_what_skops_cannot_store_is_refused_in_words() -> None:
    with pytest.raises(ArtifactError, match="a FunctionTransformer, cannot be stored without pickle: .*of a module"):
        dump_model(FunctionTransformer(kw_args={"values": (value for value in [1])}))


def test_trees_have_the_same_bytes_whatever_was_in_memory_before_and_after_loading() -> None:
    inputs, labels = model_inputs(SPEC, examples())[["hour"]], examples()["label"]
    payloads = set()
    for value in range(6):
        unused = [np.full(size, value, dtype=np.uint8) for size in range(1000, 9000, 64)]
        del unused
        payloads.add(dump_model(RandomForestClassifier(3, random_state=0).fit(inputs, labels)))
    (payload,) = payloads
    loaded = load_model(payload, artifact_digest(payload))
    assert dump_model(loaded) == payload
    expected = RandomForestClassifier(3, random_state=0).fit(inputs, labels).predict_proba(inputs)
    np.testing.assert_array_equal(loaded.predict_proba(inputs), expected)


def test_a_stored_type_that_is_no_longer_trusted_is_refused_when_loaded() -> None:
    name = f"{__name__}.a_function_of_mine"
    payload = dump_model(FunctionTransformer(a_function_of_mine), [name])
    assert load_model(payload, artifact_digest(payload), [name]).transform([1]) == [1]
    with pytest.raises(ArtifactError, match=f"contains {name}"):
        load_model(payload, artifact_digest(payload))


def test_an_artifact_says_nothing_of_when_and_where_it_was_made(payload: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.namelist() == sorted(archive.namelist(), key=lambda n: (n == "schema.json", n))
        assert str(id(payload)).encode() not in archive.read("schema.json")
