"""Tensors that are on CUDA to all who ask, and on the CPU inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    return_and_correct_aliasing,
)
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from tests.support.pretend_cuda.counters import COUNTERS, source_line
from tests.support.pretend_cuda.memory import MEMORY

SYNCHRONIZING = {
    *("_local_scalar_dense", "item", "nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive"),
    *("is_nonzero", "equal", "bincount", "histc", "_linalg_check_errors"),
}
"""Operations whose answer, or its shape, the host has to read."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
FREE = {"detach", "_local_scalar_dense", "empty", "empty_strided", "new_empty", "empty_like"}
"""Operations that launch nothing."""
SCALARS_FROM_HOST = {
    *("where", "masked_fill", "masked_fill_", "index_fill", "fill_", "lerp", "clamp", "clamp_", "full", "linspace"),
    *("addcmul", "addcdiv", "scalar_tensor", "_foreach_mul_", "_foreach_add_", "_fused_adam_", "_fused_adamw_"),
}
"""Operations beside the pointwise ones in which a 0-dim CPU tensor may take part."""
PINNED = "_pretend_pinned"
_LACKING = ("not implemented for", "not supported on CPU")


class PretendTensor(torch.Tensor):
    """A CUDA tensor to all who ask; a CPU tensor inside."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device, requires_grad: bool = False) -> PretendTensor:
        made: PretendTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=device,
            requires_grad=requires_grad,
        )
        made.inner = inner
        MEMORY.hold(inner, device)
        return made

    @property
    def data(self) -> torch.Tensor:
        return torch.Tensor.data.__get__(self)  # type: ignore[attr-defined,no-any-return]

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        if not isinstance(value, PretendTensor):
            raise RuntimeError("incompatible tensor type: a CUDA tensor was given data of the CPU (pretended CUDA)")
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.inner = value.inner

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"PretendTensor({self.inner!r}, device={self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


class PretendMode(TorchDispatchMode):
    """Gives factories with a CUDA device their tensors; all else goes to `PretendTensor` itself."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if (device is not None and torch.device(device).type == "cuda") or _any_pretended(args, kwargs):
            return dispatch(func, args, kwargs)
        return func(*args, **kwargs)


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Inside, nothing is pretended: for the insides of stand-ins."""
    with _disable_current_modes():
        yield


def _pretended(value: Any) -> bool:
    return isinstance(value, PretendTensor)


def _any_pretended(args: Any, kwargs: Any) -> bool:
    for value in (*args, *kwargs.values()):
        if isinstance(value, PretendTensor):
            return True
        if isinstance(value, list | tuple) and any(isinstance(x, PretendTensor) for x in value):
            return True
    return False


@cache
def _is_view(func: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


@cache
def _names(func: Any) -> tuple[str, str]:
    return func._schema.name.split("::")[1], func._overloadname


def indexed(device: Any) -> torch.device:
    """The device with its number."""
    made = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device() if made.index is None else made.index)


def dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation on pretended tensors: refused where CUDA refuses it, counted, and computed on the CPU."""
    name, overload = _names(func)
    flat, spec = tree_flatten((args, kwargs))
    tensors = [x for x in flat if isinstance(x, torch.Tensor)]
    fakes = [x for x in tensors if isinstance(x, PretendTensor)]
    asked = kwargs.get("device")
    asked = None if asked is None else torch.device(asked)
    if asked is not None:
        target = indexed(asked) if asked.type == "cuda" else None
    elif name == "copy_":
        target = args[0].device if _pretended(args[0]) else None
    else:
        target = fakes[0].device if fakes else None
    _refuse_mixed(func, name, args, tensors, fakes)
    _refuse_generators(func, flat, target)
    if fakes or target is not None:
        _count(func, name, overload, args, tensors, fakes, target)
    inner_args, inner_kwargs = tree_unflatten([x.inner if isinstance(x, PretendTensor) else x for x in flat], spec)
    if asked is not None and asked.type == "cuda":
        inner_kwargs = inner_kwargs | {"device": torch.device("cpu")}
    inner_kwargs.pop("pin_memory", None)
    if name == "_to_copy":
        inner_kwargs.pop("non_blocking", None)
    # A mode is not entered again while it handles an operation: this one is the CPU's.
    out = _computed(func, name, inner_args, inner_kwargs)
    if name in ("_local_scalar_dense", "is_nonzero", "equal") or target is None:
        return out

    def wrapped(x: Any) -> Any:
        return PretendTensor(x, target) if isinstance(x, torch.Tensor) and not _pretended(x) else x

    if name.endswith("_") and not name.startswith("__") and _pretended(args[0] if args else None):
        if args[0].inner.shape != args[0].shape:
            raise NotImplementedError(f"the pretended CUDA device does not know {name}, which changes a shape in place")
        return args[0]
    return return_and_correct_aliasing(func, args, kwargs, tree_map(wrapped, out))


def _refuse_mixed(func: Any, name: str, args: Any, tensors: list[Any], fakes: list[Any]) -> None:
    """Raises RuntimeError, as torch does, for tensors of several devices in an operation that takes one."""
    if not fakes or name in ("copy_", "_to_copy", "set_"):
        return
    if len({fake.device for fake in fakes}) > 1:
        _mixed(func, tensors)
    bad = [x for x in tensors if not _pretended(x) and (x.dim() > 0 or not _takes_scalars(func, name))]
    if name in INDEXING:
        # Tensors on the CPU may index a CUDA tensor, and not the other way round.
        bad = [] if _pretended(args[0]) else [args[0]]
        values = args[2] if "put" in name else None
        if values is not None and not _pretended(values) and values.dim() > 0:
            bad.append(values)
    if bad:
        _mixed(func, tensors)


def _mixed(func: Any, tensors: list[torch.Tensor]) -> None:
    what = [(str(x.device), tuple(x.shape), str(x.dtype)) for x in tensors]
    raise RuntimeError(f"Expected all tensors to be on the same device (pretended CUDA: {func}; {what})")


def _refuse_generators(func: Any, flat: list[Any], target: torch.device | None) -> None:
    wanted = "cpu" if target is None else "cuda"
    for generator in flat:
        if isinstance(generator, torch.Generator) and generator.device.type != wanted:
            found = generator.device.type
            raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{found}' ({func})")


def _takes_scalars(func: Any, name: str) -> bool:
    """Whether a 0-dim CPU tensor may take part: in elementwise operations, and not in matmul, cat, gather."""
    return torch.Tag.pointwise in func.tags or name in SCALARS_FROM_HOST


def _count(
    func: Any, name: str, overload: str, args: Any, tensors: list[Any], fakes: list[Any], target: torch.device | None
) -> None:
    line = source_line()
    full = name if overload in ("", "default") else f"{name}.{overload}"
    if _synchronizes(name, overload, args, fakes, target):
        COUNTERS.syncs[f"{line} {full}"] += 1
    if target is not None and _uploads(name, args, fakes, tensors):
        source = args[1] if name == "copy_" else tensors[0]
        kind = COUNTERS.pinned if getattr(source, PINNED, False) else COUNTERS.uploads
        kind[f"{line} {full} {tuple(source.shape)}"] += 1
        if source.dtype == torch.float64:
            COUNTERS.float64[f"{line} upload"] += 1
    if name not in FREE and not _is_view(func):
        COUNTERS.launches[line] += 1
        if any(x.dtype == torch.float64 for x in fakes):
            COUNTERS.float64[f"{line} {name}"] += 1


def _uploads(name: str, args: Any, fakes: list[Any], tensors: list[Any]) -> bool:
    if name == "_to_copy":
        return not fakes
    if name == "copy_":
        return _pretended(args[0]) and not _pretended(args[1])
    return name in INDEXING and any(isinstance(i, torch.Tensor) and not _pretended(i) for i in args[1])


def _synchronizes(name: str, overload: str, args: Any, fakes: list[Any], target: torch.device | None) -> bool:
    if name in SYNCHRONIZING or (name == "repeat_interleave" and overload == "Tensor"):
        return True
    if name in INDEXING:
        return any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    if name == "_to_copy":
        return bool(fakes) and target is None
    return name == "copy_" and not _pretended(args[0]) and _pretended(args[1])


def _computed(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """On the CPU; what it lacks in half precision, and CUDA has, in single precision."""
    if name in ("_softmax", "_log_softmax") and args[2]:
        return func(args[0].float(), args[1], False)
    try:
        return func(*args, **kwargs)
    except (RuntimeError, NotImplementedError) as error:
        flat, _ = tree_flatten((args, kwargs))
        halves = [x.dtype for x in flat if isinstance(x, torch.Tensor) and x.dtype in (torch.float16, torch.bfloat16)]
        if not halves or name.endswith("_") or not any(word in str(error) for word in _LACKING):
            raise
    half = halves[0]
    args, kwargs = tree_map(
        lambda x: x.float() if isinstance(x, torch.Tensor) and x.dtype == half else x, (args, kwargs)
    )
    COUNTERS.half_on_cpu[f"{source_line()} {name}"] += 1
    return tree_map(
        lambda x: x.to(half) if isinstance(x, torch.Tensor) and x.dtype == torch.float32 else x, func(*args, **kwargs)
    )
