"""Bits that flipped in what was stored, pickles and foreign code: found before use, and refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from telepathy.analysis.predictions import read_predictions
from telepathy.bridges import load_bridge
from telepathy.devices import Compute
from telepathy.errors import TelepathyError
from telepathy.features import FeatureStore
from telepathy.files import read_json, sha256_of, write_json
from telepathy.models.loading import load_language_model
from telepathy.models.sources import fetch_model
from telepathy.tasks.data import cache_task, load_split
from telepathy.tasks.spec import load_task
from tests.faults.conftest import differing, make_study

pytestmark = pytest.mark.faults
CPU = Compute(device=torch.device("cpu"), dtype=torch.float32)
RUNS = "results/tiny/runs/films"
BRIDGE, PREDICTIONS = f"{RUNS}/bridge/k2/seed1/bridge", f"{RUNS}/zero_shot_sender/k0/seed0/predictions.parquet"


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """The finished tiny study, to damage at will."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def flip(path: Path, draw: int) -> None:
    """Flip one random bit."""
    content = bytearray(path.read_bytes())
    place = int(np.random.default_rng(draw).integers(8 * len(content)))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


FEATURES = "resources/features/tiny/tiny-a/films"
READERS = {
    "resources/models/tiny-a/model.safetensors": lambda path, task: load_language_model(path.parent, CPU),
    "resources/models/tiny-a/config.json": lambda path, task: load_language_model(path.parent, CPU),
    "resources/models/tiny-b/tokenizer.json": lambda path, task: load_language_model(path.parent, CPU),
    f"{FEATURES}/train/layer1.npy": lambda path, task: FeatureStore(path.parents[1], "train", task).layer(1),
    f"{FEATURES}/test/offsets.npy": lambda path, task: FeatureStore(path.parents[1], "test", task),
    "resources/tasks/films/train.parquet": lambda path, task: load_split(path.parent, "train"),
    "resources/raw/films/all": lambda path, task: cache_task(task, path.parent, path.parents[1] / "again"),
    f"{BRIDGE}/model.safetensors": lambda path, task: load_bridge(path.parent),
    PREDICTIONS: lambda path, task: read_predictions(path),
}


@pytest.mark.parametrize("name", READERS)
def test_what_was_stored_is_read(copied, name):
    READERS[name](copied / name, load_task(copied / "films.yaml"))


@pytest.mark.parametrize("draw", range(5))
@pytest.mark.parametrize("name", READERS)
def test_a_flipped_bit_is_found_before_use(copied, name, draw):
    flip(copied / name, draw)
    with pytest.raises(TelepathyError, match=rf"{name} is damaged \(its sha256 changed\): delete "):
        READERS[name](copied / name, load_task(copied / "films.yaml"))


def test_a_damaged_file_stops_its_job_and_is_made_anew_once_it_is_deleted(finished, copied):
    house = type(finished)(copied)
    flip(house.path(f"{FEATURES}/test/layer1.npy"), 0)
    shutil.rmtree(house.path(f"{RUNS}/bridge/k2/seed1"))
    house.path("results/tiny/summary.csv").unlink()
    refused = make_study(house, check=False)
    assert refused.status != 0 and "layer1.npy is damaged" in refused.text
    shutil.rmtree(house.path(FEATURES))
    make_study(house)
    assert differing(house, finished) == []


def test_pickled_weights_beside_a_configuration_are_refused(finished, tmp_path):
    folder = shutil.copytree(finished.path("resources/models/tiny-a"), tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(TelepathyError, match="holds no model"):
        load_language_model(folder, CPU)
    with pytest.raises(TelepathyError, match=r"has no .*safetensors weights: name a source that ships safetensors"):
        fetch_model("pickled", {"path": str(folder)}, tmp_path / "a", tmp_path / "b", tmp_path / "c")


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_pickle_that_calls_itself_safetensors_is_refused_and_not_opened(finished, tmp_path):
    folder = shutil.copytree(finished.path("resources/models/tiny-a"), tmp_path / "pickled")
    torch.save(Bomb(tmp_path / "mark"), folder / "model.safetensors")
    about = read_json(folder / "source.json")
    write_json(
        folder / "source.json", {**about, "files": {"model.safetensors": sha256_of(folder / "model.safetensors")}}
    )
    with pytest.raises(TelepathyError, match=f"{folder} .*safetensors"):
        load_language_model(folder, CPU)
    assert not (tmp_path / "mark").exists()


def test_a_model_that_asks_for_its_own_code_is_refused_and_its_code_not_run(finished, tmp_path):
    folder = shutil.copytree(finished.path("resources/models/tiny-a"), tmp_path / "foreign")
    asks = {
        "model_type": "foreign",
        "auto_map": {name: f"foreign.{name}" for name in ("AutoConfig", "AutoModelForCausalLM")},
    }
    config = {**read_json(folder / "config.json"), **asks, "architectures": ["Foreign"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "foreign.py").write_text(f"from pathlib import Path; Path({str(tmp_path / 'mark')!r}).touch()")
    (folder / "source.json").unlink()
    with pytest.raises(TelepathyError, match=f"{folder} .*own code"):
        load_language_model(folder, CPU)
    assert not (tmp_path / "mark").exists()


def test_results_hold_no_pickle(finished):
    suffixes = {path.suffix for place in ("results", "resources") for path in finished.path(place).rglob("*")}
    assert not suffixes & {".pkl", ".pickle", ".pt", ".bin", ".pth"}
    assert isinstance(pd.read_parquet(finished.path(PREDICTIONS)), pd.DataFrame)
