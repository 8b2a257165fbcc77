import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from safetensors import SafetensorError

from telepathy.errors import TelepathyError
from telepathy.files import atomic_path, fingerprint, read_json, sha256_of, write_csv, write_json, write_parquet


def test_a_finished_block_gives_the_file_its_name(tmp_path):
    with atomic_path(tmp_path / "new" / "a.txt") as partial:
        partial.write_text("whole")
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"


def test_a_folder_replaces_the_old_folder_whole(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "stale").write_text("old")
    with atomic_path(tmp_path / "a") as partial:
        partial.mkdir()
        (partial / "fresh").write_text("new")
    assert sorted(os.listdir(tmp_path / "a")) == ["fresh"]


def test_an_exception_leaves_the_old_file_as_it_was(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"


def test_an_exception_leaves_the_old_folder_as_it_was(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a") as partial:
        partial.mkdir()
        raise RuntimeError
    assert (tmp_path / "a" / "kept").read_text() == "old"


def test_an_exception_leaves_no_partial_file(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def _killed_while_writing(target):
    code = """
        import os, signal, sys
        from telepathy.files import atomic_path
        with atomic_path(sys.argv[1]) as partial:
            partial.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(target)])
    assert done.returncode == -signal.SIGKILL


def test_a_kill_leaves_the_old_file_as_it_was(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    _killed_while_writing(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_what_a_kill_left_does_not_disturb_the_next_attempt(tmp_path):
    (tmp_path / ".a.txt.partial").mkdir()
    with atomic_path(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
    assert os.listdir(tmp_path) == ["a.txt"]


def _no_space_from_the_kernel(_partial):
    with open("/dev/full", "w") as full:
        full.write("x")


def _no_space_as_safetensors_says_it(_partial):
    # What save_file raised on a full tmpfs; it is no OSError.
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


FULL = pytest.mark.parametrize("write", [_no_space_from_the_kernel, _no_space_as_safetensors_says_it])


@FULL
def test_a_full_disk_is_one_sentence_that_names_the_path(tmp_path, write):
    target = tmp_path / "a.bin"
    with pytest.raises(TelepathyError, match=f"disk is full: {target}") as caught, atomic_path(target) as partial:
        write(partial)
    assert "\n" not in str(caught.value)


@FULL
def test_a_full_disk_leaves_the_old_file_as_it_was(tmp_path, write):
    (tmp_path / "a.bin").write_text("old")
    with pytest.raises(TelepathyError), atomic_path(tmp_path / "a.bin") as partial:
        write(partial)
    assert (tmp_path / "a.bin").read_text() == "old"


def test_another_error_of_the_system_is_not_called_a_full_disk(tmp_path):
    with pytest.raises(PermissionError), atomic_path(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "no")


def test_sha256_is_that_of_the_standard(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_a_fingerprint_is_the_start_of_the_sha256_of_sorted_json():
    expected = hashlib.sha256(b'{"a": [1, 2.5], "b": null}').hexdigest()[:16]
    assert fingerprint({"b": None, "a": [1, 2.5]}) == expected


def test_json_survives_the_round_trip(tmp_path):
    value = {"é": [1, 2.5, None, True], "a": {"b": "c"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


def test_json_is_the_same_bytes_for_the_same_value(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert (tmp_path / "a.json").read_text() == json.dumps({"a": 2, "b": 1}, indent=2) + "\n"


def test_parquet_survives_the_round_trip(tmp_path):
    frame = pd.DataFrame({"id": ["x", "y"], "score": np.array([0.1, 0.2], dtype=np.float32)}, index=[5, 7])
    write_parquet(tmp_path / "a.parquet", frame)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), frame.reset_index(drop=True))


def test_csv_has_no_index(tmp_path):
    write_csv(tmp_path / "a.csv", pd.DataFrame({"a": [1], "b": ["x"]}, index=[9]))
    assert (tmp_path / "a.csv").read_text() == "a,b\n1,x\n"
