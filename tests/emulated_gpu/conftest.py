"""The emulated GPU, for all tests of this folder; they need a process of their own (``make test-gpu``)."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .emulator import build, load

_folder = TemporaryDirectory(prefix="emulated-gpu-")
LIBRARY = Path(_folder.name) / "device.so"
build(LIBRARY)
load(LIBRARY)

from tests.unit.conftest import *  # noqa: E402, F403  (models, tokenizers and tasks)

from .gpu import Gpu, emulated  # noqa: E402


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    """The emulated GPU; PyTorch finds it while the test runs."""
    with emulated() as device:
        yield device
