"""Compile and load what PyTorch's CPU build lacks of a GPU (``device.cpp``); nothing here imports PyTorch."""

import ctypes
import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path


def pytorch() -> Path:
    """Folder of the PyTorch that is installed."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def hindrance() -> str | None:
    """Why there can be no emulated GPU here, as a sentence; None where it can be."""
    if platform.system() != "Linux" or shutil.which("g++") is None:
        return "It needs Linux and a C++ compiler: apt-get install g++."
    if (pytorch() / "lib" / "libtorch_cuda.so").exists():
        return "It needs PyTorch's CPU build, and this one is for CUDA."
    return None


def build(target: str | Path) -> None:
    """Compile ``device.cpp`` to a library for the PyTorch that is installed."""
    torch, source = pytorch(), Path(__file__).with_name("device.cpp")
    command = ["g++", "-shared", "-fPIC", "-std=c++20", f"-I{torch}/include", str(source), "-o", str(target)]
    subprocess.run([*command, f"-L{torch}/lib", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{torch}/lib"], check=True)


def load(library: str | Path) -> None:
    """Load the library, before PyTorch is imported: that looks once whether there is a GPU."""
    assert "torch" not in sys.modules, "these tests need a process of their own: make test-gpu"
    ctypes.CDLL(str(library))


if __name__ == "__main__" and (sentence := hindrance()):
    sys.exit(f"Tests on the emulated GPU are left out. {sentence}")
