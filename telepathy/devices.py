"""Where and in which precision to compute, the same way every time."""

import ctypes
import os
import platform
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass

import numpy as np
import torch
import torch.utils.deterministic
from torch.nn.attention import SDPBackend, sdpa_kernel

from telepathy import parallel
from telepathy.errors import TelepathyError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # Options of glibc's mallopt, from malloc.h.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A device and the precision in which frozen models run on it."""

    device: torch.device
    dtype: torch.dtype

    def mixed_precision(self) -> torch.autocast:
        """Matrix products of float32 weights in this precision, for training what stands before the frozen model."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def short_attention(self) -> AbstractContextManager:
        """The attention that is fastest for few queries or a few dozen tokens: on a CPU plain matrix products.

        There PyTorch's fused kernel works in blocks that pay off over hundreds of tokens only.
        """
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()

    @property
    def precision_name(self) -> str:
        """The device's type and the precision, by which weights in training differ."""
        return f"{self.device.type} {str(self.dtype).removeprefix('torch.')}"

    def describe(self) -> dict[str, str | int]:
        """Name the hardware for provenance."""
        if self.device.type == "cuda":
            hardware = torch.cuda.get_device_name(self.device)
        else:
            hardware = torch.cpu.get_capabilities().get("cpu_name") or "cpu"
        return {
            "device": self.device.type,
            "hardware": str(hardware),
            "dtype": str(self.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }


def choose_compute(device: str = "auto", dtype: str = "auto") -> Compute:
    """Choose a device and a precision.

    ``auto`` takes a CUDA device if there is one. In bfloat16 a CPU without bf16 instructions is
    slower than in float32, so ``auto`` takes bfloat16 only where the hardware has it. Of several
    processes of one job each takes the GPU of its own number.

    Raises:
        TelepathyError: if ``cuda`` is asked for and absent, or a name is unknown.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise TelepathyError(f"Unknown device {device!r}: choose auto, cpu or cuda.")
    if dtype != "auto" and dtype not in DTYPES:
        raise TelepathyError(f"Unknown dtype {dtype!r}: choose auto, {' or '.join(DTYPES)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise TelepathyError("The device cuda was asked for, but PyTorch sees none: set device: auto in config.yaml.")
    cuda = device != "cpu" and torch.cuda.is_available()
    chosen = DTYPES[dtype] if dtype != "auto" else _fast_dtype(cuda)
    gpu = "cuda" if parallel.processes() == 1 else f"cuda:{parallel.rank()}"
    if not cuda:
        _keep_freed_memory()
    return Compute(device=torch.device(gpu if cuda else "cpu"), dtype=chosen)


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors of up to 32 MiB (its limit) for the next ones.

    By default it goes back to the kernel, which clears it page by page for the next.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _fast_dtype(cuda: bool) -> torch.dtype:
    if cuda:
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if has_bf16 else torch.float32


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, and demand deterministic algorithms.

    PyTorch then also fills all new memory before something is written there. Nothing here reads it before, and
    on a CPU the filling takes time (8 and 15 % in profiles of two methods), so it is left out.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def in_any_order() -> Iterator[None]:
    """Let a GPU add in any order, as whoever serves a model does: for timings, which depend on no sum.

    Writing to a static key-value cache in a fixed order takes a sort a layer and token, which would slow relays alone.
    """
    demanded = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(demanded)


def seed_step(seed: int, step: int) -> None:
    """Seed PyTorch for one step of training: what is drawn in it depends on nothing drawn before."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))


def draws(*names: int) -> np.random.Generator:
    """Random draws that belong to PyTorch's last seed and these names, whoever else draws before or beside them."""
    return np.random.default_rng([torch.initial_seed(), *names])


def use_threads(threads: int) -> None:
    """Use this many CPU threads; part of a run's identity, since sums are split by thread."""
    torch.set_num_threads(max(1, threads))


def peak_memory_mb(compute: Compute) -> float:
    """Peak memory in MiB: the CUDA allocator's peak, or this process's peak resident set."""
    if compute.device.type == "cuda":
        return torch.cuda.max_memory_allocated(compute.device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak_memory(compute: Compute) -> None:
    """Let `peak_memory_mb` begin anew; on a CPU where Linux allows it (``/proc/self/clear_refs``, see proc(5))."""
    if compute.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(compute.device)
    else:
        with suppress(OSError), open("/proc/self/clear_refs", "w") as peaks:
            peaks.write("5")
