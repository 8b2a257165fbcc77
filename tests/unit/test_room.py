"""Models that a GPU cannot hold are refused before they are loaded."""

import pytest
import torch
from safetensors.torch import save_file

from telepathy.devices import Compute
from telepathy.errors import TelepathyError
from telepathy.models.loading import load_language_model
from telepathy.models.room import check_room
from tests.unit.conftest import build_lm


def test_a_gpu_that_is_too_small_is_told_how_much_is_needed(tmp_path):
    for name in ("reads", "hears"):
        (tmp_path / name).mkdir()
        save_file({"weight": torch.zeros(2**20, dtype=torch.bfloat16)}, tmp_path / name / "model.safetensors")
    folders = [tmp_path / "reads", tmp_path / "hears"]
    compute = Compute(device=torch.device("cpu"), dtype=torch.bfloat16)
    with pytest.raises(TelepathyError, match=r"1\.0 GiB free, but reads and hears need 2\.0 GiB"):
        check_room(folders, compute, free_bytes=2**30)
    check_room(folders, compute, free_bytes=3 * 2**30)


def test_room_is_for_weights_as_they_are_computed_with_whatever_they_are_stored_in(tmp_path):
    (tmp_path / "reads").mkdir()
    save_file({"weight": torch.zeros(2**20, 30), "b": torch.zeros(7)}, tmp_path / "reads" / "model.safetensors")
    needed = 2**31 + 2 * (30 * 2**20 + 7)
    compute = Compute(device=torch.device("cpu"), dtype=torch.bfloat16)
    check_room([tmp_path / "reads"], compute, free_bytes=needed)
    with pytest.raises(TelepathyError, match="take a larger GPU"):
        check_room([tmp_path / "reads"], compute, free_bytes=needed - 1)


def test_every_job_asks_for_room_before_it_reads_weights(tokenizer, tmp_path, monkeypatch):
    lm = build_lm("llama", tokenizer)
    lm.model.save_pretrained(tmp_path / "reads")
    lm.tokenizer.save_pretrained(tmp_path / "reads")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _device: (2**30, 2**34))
    monkeypatch.setattr("telepathy.models.loading._read_weights", lambda *_: pytest.fail("read"))
    with pytest.raises(TelepathyError, match=r"1\.0 GiB free, but reads need 2\.0 GiB"):
        load_language_model(tmp_path / "reads", Compute(device=torch.device("cuda"), dtype=torch.bfloat16))


def test_a_damaged_file_is_left_to_loading_which_names_it(tmp_path):
    (tmp_path / "reads").mkdir()
    (tmp_path / "reads" / "model.safetensors").write_bytes(b"no weights")
    check_room([tmp_path / "reads"], Compute(device=torch.device("cpu"), dtype=torch.bfloat16), free_bytes=1)
