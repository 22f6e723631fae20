"""Training steps as plain PyTorch makes them at its best: everything on the device, drawn ahead, one CUDA graph a step.

This is the limit that veilsim is measured against on a GPU. It shares nothing with veilsim's engine: neither networks
nor augmentation, nor how steps are recorded. On a CPU, or where they are not to be recorded, steps run as they are.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.bench.device_networks import ResNet20, UNet, phi

SIDE, PADDING, CLASSES = 32, 4, 10
_ALPHA = 0.005
_DRAWN = 400
"""Steps that are drawn ahead, after which the same are drawn again."""
_WARM_UP = 4
_BETWEEN = 20
"""Steps between two looks at the clock, for which a GPU is waited for."""


@dataclass(frozen=True)
class Work:
    """What a loop trains with."""

    device: torch.device
    precision: str
    """``bf16`` or ``fp32``."""
    batch: int
    images: int
    """Of noise, on the device; labels are noise as well."""

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        # A cast that is kept for the next use would be kept across recordings too.
        return torch.autocast(self.device.type, torch.bfloat16, self.precision == "bf16", cache_enabled=False)

    def module(self, module: nn.Module) -> nn.Module:
        """Put a network on the device, weights in channels-last order."""
        return module.to(self.device).to(memory_format=torch.channels_last)

    def noise(self, margin: int = 0) -> Tensor:
        """Return bitmaps with a black margin, uint8 ``(images, H, W, 3)``."""
        drawn = torch.randint(256, (self.images, SIDE, SIDE, 3), dtype=torch.uint8)
        return F.pad(drawn, (0, 0, margin, margin, margin, margin)).to(self.device)

    def sgd(self, module: nn.Module, lr: float = 0.01) -> torch.optim.Optimizer:
        """Return the optimiser of psi and h_theta."""
        rate, on_gpu = torch.tensor(lr, device=self.device), self.device.type == "cuda"
        return torch.optim.SGD(module.parameters(), rate, 0.9, weight_decay=5e-4, fused=on_gpu or None)

    def adam(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser of inverse networks."""
        on_gpu = self.device.type == "cuda"
        rate = torch.tensor(1e-3, device=self.device)
        return torch.optim.Adam(module.parameters(), rate, fused=on_gpu or None, capturable=on_gpu)


class Drawn:
    """The random numbers of steps to come: which images, where they are cut out, which are mirrored."""

    def __init__(self, work: Work, users: int = 1) -> None:
        count, limits = work.batch * users, (work.images, 2 * PADDING + 1, 2 * PADDING + 1, 2)
        drawn = torch.stack([torch.randint(limit, (_DRAWN, count)) for limit in limits], 1)
        self._steps, self._next = drawn.to(work.device), torch.zeros(1, dtype=torch.int64, device=work.device)
        self._places = torch.arange(SIDE, device=work.device)

    def step(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return ids, rows and columns to cut out (``(N, 32)``), and which to mirror, of the next step."""
        ids, down, right, flip = self._steps.index_select(0, self._next)[0]
        self._next.add_(1).remainder_(_DRAWN)
        flipped = flip.bool()
        columns = torch.where(flipped[:, None], SIDE - 1 - self._places, self._places)
        return ids, down[:, None] + self._places, right[:, None] + columns, flipped


def _unit(bitmaps: Tensor) -> Tensor:
    """``(N, H, W, 3)`` as float32 ``(N, 3, H, W)`` in [0, 1], channels last."""
    return bitmaps.permute(0, 3, 1, 2).float().div_(255)


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.detach()


Step = Callable[[], Tensor]
"""Does a training step, and returns its loss."""


def psi_step(work: Work, width: int = 0) -> Step:
    """Return a training step of ResNet-20; it has one width."""
    psi, drawn, images = work.module(ResNet20()).train(), Drawn(work), work.noise(PADDING)
    labels, optimiser = torch.randint(CLASSES, (work.images,)).to(work.device), work.sgd(psi)

    def step() -> Tensor:
        ids, rows, columns, _ = drawn.step()
        plain = _unit(images[ids[:, None, None], rows[:, :, None], columns[:, None, :]])
        with work.autocast():
            logits = psi(plain)
        return _descend(optimiser, F.cross_entropy(logits, labels[ids]))

    return step


def user_step(work: Work, width: int, users: int = 1) -> Step:
    """Return a training step of h_theta against psi and phi, or of several users' at once (their mean loss)."""
    h, drawn, images = work.module(UNet(width, users)).train(), Drawn(work, users), work.noise(PADDING)
    psi, features = (work.module(frozen).eval().requires_grad_(False) for frozen in (ResNet20(), phi()))
    labels, optimiser = torch.randint(CLASSES, (work.images,)).to(work.device), work.sgd(h)

    def step() -> Tensor:
        ids, rows, columns, _ = drawn.step()
        plain = _unit(images[ids[:, None, None], rows[:, :, None], columns[:, None, :]])
        with torch.no_grad(), work.autocast():
            seen = features(plain)
        with work.autocast():
            protected = h(plain)
            logits, shown = psi(protected), features(protected)
        loss = F.cross_entropy(logits, labels[ids]) - _ALPHA * F.mse_loss(shown.float(), seen.float())
        # Of all users' losses, the sum is what each has its own gradient of.
        return _descend(optimiser, loss * users) / users

    return step


def itn_step(work: Work, width: int) -> Step:
    """Return a training step of an inverse network on pairs, half of which are those of mirrored images."""
    itn, drawn = work.module(UNet(width)).train(), Drawn(work)
    plain, protected, mirrored = (work.noise() for _ in range(3))
    optimiser = work.adam(itn)

    def step() -> Tensor:
        ids, _, _, flipped = drawn.step()
        chosen, wanted = flipped[:, None, None, None], plain[ids]
        given = _unit(torch.where(chosen, mirrored[ids], protected[ids]))
        wanted = _unit(torch.where(chosen, wanted.flip(2), wanted))
        with work.autocast():
            estimates = itn(given)
        return _descend(optimiser, F.mse_loss(estimates, wanted))

    return step


class Recorded:
    """A step as one CUDA graph, on a stream of its own."""

    def __init__(self, step: Step, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP):
                step()
        torch.cuda.current_stream(device).wait_stream(self._stream)
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            self._loss = step()

    def __call__(self) -> Tensor:
        """Have the step done; its loss is overwritten by the next."""
        with torch.cuda.stream(self._stream):
            self._graph.replay()
        return self._loss


def prepared(step: Step, device: torch.device, *, recorded: bool) -> Step:
    """Return a step that is ready to be timed: recorded where it is to be and there is a GPU, and warm in any case."""
    if recorded and device.type == "cuda":
        return Recorded(step, device)
    for _ in range(_WARM_UP if device.type == "cuda" else 1):
        step()
    return step


def rate(steps: Sequence[Step], seconds: float, device: torch.device) -> float:
    """Do ``steps`` in turn for so long, and return how many were done in a second."""
    done, between = 0, _BETWEEN if device.type == "cuda" else 1
    _wait(device)
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for _ in range(between):
            for step in steps:
                step()
            done += len(steps)
        _wait(device)
    return done / took


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
