"""What a provider does so that gradients tell less: what it answers, how much of it, and to whom."""

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from roles.common.config.provider import DefenceConfig
from roles.common.exchange import ExchangeError, LossGradient
from roles.common.seeds import generator

_ENTRY = np.dtype([("digest", "V16"), ("images", np.int64)])


class Defence:
    """The published terms of a provider, kept to.

    Args:
        seed: of the run; noise follows from it.
        folder: where it counts what each user has asked about, one file a user. Any process of the provider may write
            to it; a user asks one thing at a time.
    """

    def __init__(self, config: DefenceConfig, seed: int, folder: Path) -> None:
        self.config, self._seed, self._folder = config, seed, folder
        self._known: dict[int, tuple[int, set[bytes]]] = {}

    def admit(self, request: LossGradient) -> None:
        """Take note of a request for a gradient, or refuse it.

        A request that comes again tells nothing new, and is not counted again.

        Raises:
            ExchangeError: it has too few images, or more than are left of the user's budget.
        """
        config, count = self.config, len(request.ids)
        if count < config.least_batch:
            raise ExchangeError(f"{count} images are too few for a gradient: ask for {config.least_batch} or more")
        if config.most_images is None:
            return
        asked, known = self._asked(request.user)
        digest = _digest_of(request.protected, request.ids)
        if digest in known:
            return
        if asked + count > config.most_images:
            raise ExchangeError(
                f"user {request.user} has asked for gradients of {asked} of {config.most_images} images: {count} more "
                "are too many (provider.defence.most_images)"
            )
        path = self._file(request.user)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(np.array([(digest, count)], _ENTRY).tobytes())
        known.add(digest)
        self._known[request.user] = asked + count, known

    def applied(self, gradient: Tensor, request: LossGradient) -> Tensor:
        """Return what is given away of the gradient of a mean loss, float32 ``(N, 3, H, W)`` as it."""
        config, count = self.config, len(gradient)
        # Each image's own loss: a user who sends many images at once is told no more and no less of each.
        own = (gradient * count).flatten(1)
        if config.clip is not None:
            own = own * (config.clip / _norms(own).clamp(min=1e-12)).clamp(max=1)
        if config.noise:
            size = _norms(own) if config.clip is None else config.clip
            own = own + config.noise * size * self._noise(request).to(own) / math.sqrt(own.shape[1])
        if config.keep < 1:
            kept = max(1, round(config.keep * own.shape[1]))
            places = own.abs().topk(kept, dim=1).indices
            own = torch.zeros_like(own).scatter(1, places, own.gather(1, places))
        if config.sign:
            # Of the entries that are left.
            given = (own != 0).sum(1, keepdim=True).clamp(min=1)
            own = own.sign() * own.abs().sum(1, keepdim=True) / given
        return (own / count).view_as(gradient).contiguous()

    def _noise(self, request: LossGradient) -> Tensor:
        """Return standard Gaussian noise for each image, float32 ``(N, 3 * H * W)``, on the CPU."""
        images = request.protected.detach().cpu().contiguous()
        drawn = [
            torch.randn(image.numel(), generator=generator(self._seed, "defence", _digest_of(image).hex(), number))
            for image, number in zip(images, request.ids.tolist(), strict=True)
        ]
        return torch.stack(drawn)

    def _asked(self, user: int) -> tuple[int, set[bytes]]:
        """Return how many images a user has asked about, and by which requests."""
        path, found = self._file(user), self._known.get(user)
        size = path.stat().st_size if path.is_file() else 0
        if found is None or size != len(found[1]) * _ENTRY.itemsize:
            entries = np.frombuffer(path.read_bytes(), _ENTRY) if size else np.empty(0, _ENTRY)
            found = int(entries["images"].sum()), {bytes(digest) for digest in entries["digest"]}
            self._known[user] = found
        return found

    def _file(self, user: int) -> Path:
        return self._folder / f"{user}.bin"


def _norms(rows: Tensor) -> Tensor:
    return rows.square().sum(dim=1, keepdim=True).sqrt()


def _digest_of(*tensors: Tensor) -> bytes:
    """Return what tells the values of tensors from others, 16 bytes."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.digest()[:16]
