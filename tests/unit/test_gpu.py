"""Every method gives on a GPU what it gives on a processor, and training there does what it does here.

A method's step is that of ``benchmarks/step_calls``. Both devices see the same numbers: everything random is drawn on
the processor and moved. Where there is no GPU, a pretended one (``pretended.py``) shows that no step mixes devices.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended import OnCard, to_device
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_leaves

from cl_teach.augment import simclr_augment
from cl_teach.core import clip_loss, info_nce, nt_xent, sup_con, tiling
from cl_teach.models import ConvEncoder, ProjectionHead, graph
from cl_teach.training import pretrain

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
CASES = importlib.import_module("step_calls").cases()
sys.path.remove(str(BENCHMARKS))

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CPU = torch.device("cpu")
RANDOM = {
    *(torch.rand_like, torch.randn_like, torch.randint_like, torch.bernoulli, torch.multinomial, torch.normal),
    *(torch.dropout, F.dropout),
}
# In these, torch makes tensors that a pretended GPU does not notice.
MADE_INSIDE = {"one_hot", "gru", "pad_sequence", "quantile"}
IN_PLACE = {
    getattr(Tensor, f"{name}_")
    for name in ("uniform", "normal", "bernoulli", "random", "exponential", "log_normal", "geometric", "cauchy")
}


def of_the_caller() -> bool:
    """Whether a tensor is made by the code around a method, or by a method's ``draw_*``: a user moves these."""
    frame, inside = sys._getframe(2), False
    while frame.f_back and "step_calls" not in frame.f_code.co_filename:
        if "cl_teach" in frame.f_code.co_filename:
            inside = True
            if frame.f_code.co_name.startswith("draw_"):
                return True
        frame = frame.f_back
    return not inside


class OnDevice(TorchFunctionMode):
    """Within, a caller's tensors are on a device, what is random is drawn on the processor, and losses are noted.

    Args:
        where: ``"cpu"`` or ``"cuda"``.
        pretended: whether the GPU is none.
    """

    def __init__(self, where: str, pretended: bool = False) -> None:
        super().__init__()
        self.where, self.pretended, self.setup = torch.device(where), pretended, True
        self.losses, self.new = list[float](), _device_constructors()

    def moved(self, value: Any, where: torch.device) -> Any:
        """The same on a device; a leaf stays one."""
        if isinstance(value, list | tuple):
            return type(value)(self.moved(each, where) for each in value)
        if not isinstance(value, Tensor):
            return value
        if self.pretended:
            return to_device(value, where)
        return value.detach().to(where).requires_grad_() if value.is_leaf and value.requires_grad else value.to(where)

    def made(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A new tensor, on the processor first."""
        if args and isinstance(args[0], Tensor):  # torch.as_tensor of one that is there
            return self.to(*args, **kwargs) if self.pretended else func(*args, **kwargs)
        asked = torch.device(kwargs.get("device") or CPU)
        return self.moved(
            func(*args, **kwargs | {"device": CPU}), self.where if self.setup or of_the_caller() else asked
        )

    def to(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`Tensor.to` where the device is pretended."""
        args = (*args, *kwargs.values())
        where = [torch.device(a) for a in args if isinstance(a, str | torch.device)]
        like = [a for a in args if isinstance(a, Tensor)]
        dtypes = [a for a in args if isinstance(a, torch.dtype)] + [a.dtype for a in like]
        for place in (*where, *(a.device for a in like)):
            x = self.moved(x, place)
        return x.to(dtypes[0]) if dtypes else x

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.backward:
            self.losses.append(float(args[0].detach().sum()))
        if func is Tensor.to and self.pretended:
            return self.to(*args, **kwargs)
        if func in IN_PLACE:
            with torch.no_grad():
                return args[0].copy_(func(self.moved(args[0].detach(), CPU).clone(), *args[1:], **kwargs))
        if func in RANDOM or (
            self.pretended and getattr(func, "__name__", "") in MADE_INSIDE
        ):  # a detour that the gradient takes, too
            found = func(*self.moved(args, CPU), **{key: v for key, v in kwargs.items() if key != "device"})
            places = [x.device for x in tree_leaves(args) if isinstance(x, Tensor)]
            return self.moved(found, places[0] if places else CPU)
        return self.made(func, args, kwargs) if func in self.new else func(*args, **kwargs)


def losses_and_gradients(slug: str, where: str, pretended: bool = False) -> list[Tensor]:
    """Of the small step of a method, on the processor afterward."""
    torch.manual_seed(0)
    with tiling(8) if pretended else nullcontext(), OnDevice(where, pretended) as mode:
        step = CASES[slug].make(16)[0]
        mode.setup = False
        trained = step()
        gradients = [None if x.grad is None else mode.moved(x.grad.detach(), CPU) for x in trained]
    assert all(x.device.type == where for x in trained)
    return [torch.tensor(mode.losses), *(torch.zeros(1) if g is None else g for g in gradients)]


def alike(found: list[Tensor], expected: list[Tensor]) -> None:
    """Losses to 1e-4, gradients to 1e-3 of their largest entry."""
    assert len(found) == len(expected)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape
        close = (1e-3 if i else 1e-4) * b.abs().max() + 1e-6
        assert (a - b).abs().max() <= close, f"tensor {i}: {(a - b).abs().max():.1e} apart, largest {b.abs().max():.1e}"


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products and convolutions in float32, as on a processor; TensorFloat-32 has ten bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("slug", CASES)
def test_a_method_gives_on_a_gpu_what_it_gives_on_a_processor(slug: str, exact: None) -> None:
    alike(losses_and_gradients(slug, "cuda"), losses_and_gradients(slug, "cpu"))


def test_a_pretended_gpu_refuses_what_a_gpu_refuses() -> None:
    with OnDevice("cuda", pretended=True):
        z = torch.randn(3, 2)
    assert z.device.type == "cuda" and (z * torch.tensor(2.0))[torch.tensor([0])].device.type == "cuda"
    true = torch.ones(3, 2) > 0
    for wrong in (lambda: z + torch.ones(3, 2), lambda: z @ torch.ones(2), lambda: torch.where(true, z, z)):
        with pytest.raises(RuntimeError, match="one device"):
            wrong()
    with pytest.raises(TypeError, match="numpy"):
        z.numpy()


@pytest.mark.parametrize("slug", CASES)
def test_no_step_mixes_devices(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "_sparse_gcn_matrix", graph.gcn_matrix)  # a sparse matrix cannot pretend
    alike(losses_and_gradients(slug, "cuda", pretended=True), losses_and_gradients(slug, "cpu"))


LOSSES = {
    "nt_xent": lambda a, b: nt_xent(a, b, 0.1),
    "nt_xent, cold": lambda a, b: nt_xent(a, b, 0.01),
    "sup_con": lambda a, b: sup_con(torch.cat([a, b]), torch.arange(2 * len(a), device=a.device) % 3, 0.1),
    "clip_loss": lambda a, b: clip_loss(a, b, torch.tensor(2.0, device=a.device)),
    "info_nce": lambda a, b: info_nce(a, b, None, 0.1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_no_tile_waits_for_the_card(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatch, waits = OnCard.__torch_dispatch__.__func__, list[str]()

    def noted(cls: Any, func: Any, *rest: Any) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:  # a number that Python asks for
            waits.append(name)
        return dispatch(cls, func, *rest)

    monkeypatch.setattr(OnCard, "__torch_dispatch__", classmethod(noted))
    counts = []
    for n in (8, 32):  # 4 to 16 and 64 to 256 tiles
        with OnDevice("cuda", pretended=True) as mode, tiling(4):
            z = [torch.randn(n, 8).requires_grad_() for _ in range(2)]
            mode.setup = False
            waits.clear()
            value = LOSSES[name](*z)
            forward = len(waits)
            torch.autograd.grad(value, z)
            counts.append((forward, len(waits) - forward))
    assert counts[0] == counts[1] and counts[0][1] <= 1


class Alternate:
    """Views without chance: the picture, its mirror image, the picture, ..."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        self.calls += 1
        return images.flip(-1) if self.calls % 2 else images


def trained(where: str, **options: Any) -> tuple[Tensor, nn.Module]:
    """Losses of some steps of SimCLR on noise, every one on all pictures, and the encoder."""
    torch.manual_seed(0)
    images = torch.rand(48, 1, 16, 16)
    encoder = ConvEncoder(width=4, image_size=16)
    head = ProjectionHead(encoder.feature_dim, 8)
    settings = {"epochs": 3, "batch_size": 48, "progress": False, "augment": Alternate()} | options
    history = pretrain(encoder, head, images.to(where), loss=lambda a, b: nt_xent(a, b, 0.2), **settings)
    return torch.as_tensor(history.losses).cpu(), encoder


@pytest.mark.cuda
@needs_gpu
def test_training_goes_the_same_way_on_a_gpu(exact: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found, encoder = trained("cuda")
    assert next(encoder.parameters()).is_cuda
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # what the package asks to choose a device
    torch.testing.assert_close(found, trained("cpu")[0], rtol=1e-3, atol=1e-3)


MORE = ({"amp": True}, {"augment": simclr_augment(scale=(0.5, 1.0))}, {"chunk": 8, "freeze_statistics": True})


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("options", MORE)
def test_training_on_a_gpu_with_what_it_can_do_besides(options: dict[str, Any]) -> None:
    assert trained("cuda", **options)[0].isfinite().all()


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, needs_gpu])])
def test_a_run_goes_on_where_it_stopped(where: str, tmp_path: Path) -> None:
    file, steps = tmp_path / "run.pt", []

    def stop(*_: Any) -> None:
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt

    whole, _ = trained(where, epochs=6)
    with pytest.raises(KeyboardInterrupt):
        trained(where, epochs=6, checkpoint=file, on_step=stop)
    again, _ = trained(where, epochs=6, checkpoint=file)
    torch.testing.assert_close(again, whole, rtol=1e-3, atol=1e-3)
