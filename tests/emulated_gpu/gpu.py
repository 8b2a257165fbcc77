"""An emulated GPU: tensors of the device cuda:0 that the CPU computes, and what stands for ``torch.cuda``.

It is as strict as a GPU where code goes wrong: tensors of two devices do not mix, while a graph is recorded nothing may
wait for the GPU or copy from the CPU, and where determinism is demanded some operations are refused. It says nothing of
speed, nor of kernels that only a GPU has.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

DEVICE = torch.device("cuda:0")
READ_BACK = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero"}
"""Operations whose result the CPU must see before it can go on."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations that take indices of the CPU too, and copy them."""

NOT_DETERMINISTIC: dict[str, Callable[..., bool]] = {
    "cumsum": lambda tensor, *_, **__: tensor.is_floating_point(),
    "nll_loss2d_forward": lambda _scores, _gold, _weight, reduction, *_: reduction != 0,
    "bincount": lambda _tensor, weights=None, *_: weights is not None,
    **dict.fromkeys(("histc", "kthvalue", "put_", "scatter_reduce", "scatter_reduce_"), lambda *_, **__: True),
}
"""Operations that a GPU refuses where determinism is demanded: of those that `torch.use_deterministic_algorithms` lists
the ones that language models and losses may come to use, and when."""


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of an operation's arguments or results, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _changed(value: Any, kind: type[Tensor], change: Callable[[Any], Any]) -> Any:
    """The same arguments or results with tensors of a kind changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([_changed(part, kind, change) for part in value])
    if isinstance(value, dict):
        return {name: _changed(part, kind, change) for name, part in value.items()}
    return value


@cache
def _decomposes(func: Any) -> bool:
    return func._can_decompose()


class GpuTensor(Tensor):
    """A tensor of the device ``cuda:0`` around one of the CPU."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "GpuTensor":
        """Wrap a CPU tensor."""
        place = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=DEVICE, **place)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Run an operation."""
        return GPU.run(func, args, kwargs or {})

    def tolist(self) -> Any:
        """The content as numbers; PyTorch's own refuses tensors of a subclass."""
        return self.cpu().tolist()

    def storage(self) -> Any:
        """Where the content lies, by which safetensors knows what lies twice."""
        return self.inner.storage()

    def untyped_storage(self) -> Any:
        """As `storage`."""
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        """As `storage`."""
        return self.inner.data_ptr()

    def __repr__(self) -> str:
        return f"GpuTensor({self.inner!r})"


class _Factories(TorchDispatchMode):
    """Sees operations that have no tensor of the GPU among their arguments, and may ask for one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if kwargs.pop("pin_memory", False):  # which the CPU build has no memory for
            GPU.pinned += 1
        wanted = kwargs.get("device")
        here = wanted is not None and torch.device(wanted).type == "cuda"
        if here or any(isinstance(tensor, GpuTensor) for tensor in _tensors((args, kwargs))):
            return GPU.run(func, args, kwargs)
        return func(*args, **kwargs)


class Gpu:
    """The state of the emulated GPU.

    Attributes:
        launched: how often each operation ran.
        waits: what made the CPU wait or copy.
        pinned: tensors that were made in pinned memory.
        tape: the graph that is being recorded; None where none is.
    """

    def __init__(self) -> None:
        self.launched: Counter[str] = Counter()
        self.waits: list[str] = []
        self.pinned = 0
        self.tape: Graph | None = None

    def wait(self, why: str) -> None:
        """Note that the CPU waits for the GPU; an error while a graph is recorded, as on a GPU."""
        if self.tape is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {why}")
        self.waits.append(why)

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation on the CPU and put its result where a GPU would."""
        if _decomposes(func):  # where gradients are off for good, what consists of other operations comes whole
            with _Factories():
                return func.decompose(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        tensors = list(_tensors((args, kwargs)))
        here = self._place(name, tensors, kwargs.get("device"))
        demanded = torch.are_deterministic_algorithms_enabled()
        if demanded and name in NOT_DETERMINISTIC and NOT_DETERMINISTIC[name](*args, **kwargs):
            raise RuntimeError(f"{name} has no deterministic implementation on a GPU")
        self.launched[name] += 1
        if name == "_fused_sdp_choice":
            return 0  # attention by matrix products: the other kernels are the CPU's or a GPU's own
        inner_args, inner = _changed((args, kwargs), GpuTensor, lambda tensor: tensor.inner)
        if inner.get("device") is not None:
            inner = {**inner, "device": torch.device("cpu")}
        found = func(*inner_args, **inner) if self.tape is None else self.tape.run(func, inner_args, inner)
        if not here:
            return found
        aliases = any(result.alias_info is not None for result in func._schema.returns)
        lasting = aliases and not tensors[0].is_inference()  # a view is as lasting as what it shows
        with torch.inference_mode(torch.is_inference_mode_enabled() and not lasting):
            wrapped = _changed(found, Tensor, GpuTensor)
        return return_and_correct_aliasing(func, args, kwargs, wrapped) if aliases else wrapped

    def _place(self, name: str, tensors: Sequence[Tensor], wanted: Any) -> bool:
        """Whether the result lies on the GPU; refuses what a GPU refuses."""
        on = [isinstance(tensor, GpuTensor) for tensor in tensors]
        if name in READ_BACK and any(on):
            self.wait(name)
        if name in ("_to_copy", "copy_"):
            here = on[0] if wanted is None else torch.device(wanted).type == "cuda"
            if here != on[-1] and tensors[-1].numel():
                self.wait(f"{name} {'to' if here else 'from'} the GPU")
            return here
        if wanted is not None:
            return torch.device(wanted).type == "cuda"
        if name in INDEXING and any(on):
            if any(tensor.dtype == torch.bool for tensor in tensors[1:]):
                self.wait(f"{name} by a mask")
            if not all(on):
                self.wait(f"{name} by indices of the CPU")
            if not on[0]:
                raise RuntimeError("indices should be on the same device as the indexed tensor, which is the CPU's")
            return True
        if any(on) and any(tensor.dim() > 0 for tensor, is_on in zip(tensors, on) if not is_on):
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {name} of {[t.device for t in tensors]}"
            )
        return any(on)


GPU = Gpu()


class Graph:
    """Stands for `torch.cuda.CUDAGraph`: operations of one recording, which run again where they ran before."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, Any, Any, Any]] = []
        self.changed: list[tuple[Tensor, Tensor]] = []
        self.sharing: list[Graph] = [self]

    def pool(self) -> list["Graph"]:
        """The memory of this graph: all graphs that lie in it."""
        return self.sharing

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Record an operation; to know the shape of its result it is run, which `end` undoes."""
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[place] if place < len(args) else kwargs.get(argument.name)
                self.changed += [(tensor, tensor.clone()) for tensor in _tensors(given)]
        found = func(*args, **kwargs)
        self.steps.append((func, args, kwargs, found))
        return found

    def end(self) -> None:
        """Leave everything as before the recording, which computes nothing; results hold nothing yet."""
        for tensor, before in reversed(self.changed):
            tensor.copy_(before)
        self.forget()

    def forget(self) -> None:
        """Let results hold nothing: another graph has used their memory."""
        for func, _, _, found in self.steps:
            if all(result.alias_info is None for result in func._schema.returns):
                for tensor in _tensors(found):
                    if tensor.is_floating_point():
                        tensor.fill_(torch.nan)

    def replay(self) -> None:
        """Run everything again and put each result where the first lies."""
        for other in self.sharing:
            if other is not self:
                other.forget()
        for func, args, kwargs, found in self.steps:
            for old, new in zip(_tensors(found), _tensors(func(*args, **kwargs)), strict=True):
                if old is not new:
                    old.copy_(new)


@contextlib.contextmanager
def record(graph: Graph, pool: list[Graph] | None = None) -> Iterator[None]:
    """Stands for `torch.cuda.graph`."""
    if pool is not None:
        graph.sharing = pool
        pool.append(graph)
    GPU.tape = graph
    try:
        yield
        graph.end()
    finally:
        GPU.tape = None


class Stream:
    """Stands for `torch.cuda.Stream`: there is one."""

    def wait_stream(self, _other: "Stream") -> None:
        """Nothing is left to wait for."""


def _says(value: Any = None) -> Callable[..., Any]:
    """A function that always returns this; one of its own for each name, which PyTorch's compiler asks for."""
    return lambda *_args, **_options: value


MEMORY = 2**40
STANDS_FOR_CUDA: dict[str, Any] = {
    "_lazy_init": _says(),
    "is_available": _says(True),
    "is_bf16_supported": _says(True),
    "device_count": _says(1),
    "current_device": _says(0),
    "get_device_name": _says("emulated GPU"),
    "get_device_capability": _says((9, 0)),
    "get_device_properties": _says(SimpleNamespace(name="emulated GPU", total_memory=MEMORY, major=9, minor=0)),
    "mem_get_info": _says((MEMORY, MEMORY)),
    "max_memory_allocated": _says(0),
    "max_memory_reserved": _says(3 * 2**30),
    "is_initialized": _says(True),
    "reset_peak_memory_stats": _says(),
    "empty_cache": _says(),
    "synchronize": lambda *_args: GPU.wait("synchronize"),
    "manual_seed": _says(),
    "manual_seed_all": _says(),
    "get_rng_state": lambda *_args: torch.get_rng_state(),
    "set_rng_state": _says(),
    "CUDAGraph": Graph,
    "graph": record,
    "Stream": Stream,
    "stream": contextlib.nullcontext,
    "current_stream": lambda *_args: Stream(),
    "is_current_stream_capturing": lambda: GPU.tape is not None,
}


class Profile(contextlib.nullcontext):
    """Stands for `torch.profiler.profile`, which no build without CUDA lets watch a GPU: it saw no kernels."""

    def __init__(self, **_options: Any):
        super().__init__(self)
        self.profiler = SimpleNamespace(kineto_results=SimpleNamespace(events=list))


@contextlib.contextmanager
def emulated() -> Iterator[Gpu]:
    """Let PyTorch find the emulated GPU; a new one each time."""
    stand_ins = {(torch.cuda, name): stand_in for name, stand_in in STANDS_FOR_CUDA.items()}
    stand_ins[torch.profiler, "profile"] = Profile
    before = {place: getattr(*place) for place in stand_ins}
    lifted = torch._C._only_lift_cpu_tensors()
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # transformers loads by threads, and the emulation is in one
    GPU.__init__()  # type: ignore[misc]
    # A module moves to the device by new parameters: a GpuTensor cannot become the content of an old one.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes a tensor of the CPU first, and then moves it
    for place, stand_in in stand_ins.items():
        setattr(*place, stand_in)
    try:
        with _Factories():
            yield GPU
    finally:
        del os.environ["HF_DEACTIVATE_ASYNC_LOAD"]
        for place, original in before.items():
            setattr(*place, original)
        torch._C._set_only_lift_cpu_tensors(lifted)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
