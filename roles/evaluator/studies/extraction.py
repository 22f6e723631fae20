"""Extraction: how much of psi does a hostile user carry away, and how much of that do gradients add to the service?"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from roles.common.augment import augment
from roles.common.config.base import Rising
from roles.common.exchange import Work
from roles.common.seeds import derived_seed, generator
from roles.evaluator.hostile import ByThieves, HostileUser, images_of
from roles.evaluator.results import Findings, Row
from roles.evaluator.student import Lessons, answers_of, train_student
from roles.evaluator.study import Lines, StudyContext

_REQUEST = 500


class Extraction(ByThieves):
    """A student learns psi from labels that the service gives of the user's own plain images, and from gradients.

    Whoever may use the service has such labels, whatever becomes of gradients: the channel ``service``. A hostile user
    sends the same images, plain, as if they were protected, and has a gradient of each as well: ``gradients``. Labels
    of X' are psi's own nearly everywhere, and those that are not point a gradient the wrong way.

    Whoever has asked about all of X' goes on with its images moved by up to an eighth of their side and, where
    ``attack.flip`` lets it, mirrored, under the ids of what they were. Students of both channels are trained on moved
    images as well (:func:`roles.evaluator.student.train_student`).
    """

    kind: Literal["extraction"]
    queries: Rising[PositiveInt] = (50, 500, 5000, 45000)
    """Images that are asked about; of gradients, cut to what the user's budget allows. Beyond those of X', they are the
    same once more, moved."""
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 32
    """Channels of the student's first stage (:class:`roles.evaluator.student.Student`)."""
    steps: Annotated[int, Field(ge=1)] = 2000
    """Of its training, however many images there are."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    weight: Annotated[float, Field(ge=0)] = 1.0
    """How much gradients count beside labels."""
    images: Annotated[int, Field(ge=1)] = 2000
    """Test images on which student and psi are compared."""

    columns: ClassVar[Mapping[str, str]] = {
        "user": "who asks",
        "channel": "what the student learns from: labels of the service alone, or gradients as well",
        "queries": "images that were asked about",
        "agreement": "share of plain test images to which the student gives the label that psi gives",
        "accuracy": "share of them to which it gives the true label; where the evaluator has labels",
    }
    figure: ClassVar[Lines] = Lines("queries", "agreement", "channel", "agreement with psi", share=True)

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`."""
        user, attacker = int(part), context.attacker
        thief = HostileUser(context, f"extraction/{part}")
        shift, flip = max(1, attacker.store.side // 8), attacker.config.flip
        plain, ids = self._asked(user, *(yield from images_of(user, context)), shift, context)
        labels = yield from thief.classified("labels", plain)
        known: dict[str, tuple[int, Tensor | None]] = {"service": (len(ids), None)}
        if affordable := thief.affordable(len(ids), _REQUEST):
            found = yield from thief.gradients("own", plain[:affordable], ids[:affordable], _REQUEST)
            known["gradients"] = (affordable, found[0])
        test = context.test_images(self.images)[0]
        answers = yield from thief.classified("test", test)

        def taught(channel: str, queries: int) -> Row:
            gradients = known[channel][1]
            lessons = Lessons(plain[:queries], labels[:queries], None if gradients is None else gradients[:queries])
            student = train_student(
                lessons,
                len(attacker.store.classes),
                self.width,
                self.steps,
                self.batch_size,
                self.weight,
                derived_seed(attacker.seed, "extraction", user),
                attacker.compute,
                shift=shift,
                flip=flip,
            )
            given = answers_of(student, test, attacker.compute)
            row: Row = {"user": user, "channel": channel, "queries": queries}
            row["agreement"] = float((given == answers).double().mean())
            accuracy = attacker.accuracy(given)
            return row if accuracy is None else row | {"accuracy": accuracy}

        return [
            taught(channel, queries)
            for channel, (most, _) in known.items()
            for queries in dict.fromkeys(min(number, most) for number in self.queries)
        ]

    def _asked(self, user: int, plain: Tensor, ids: Tensor, shift: int, context: StudyContext) -> tuple[Tensor, Tensor]:
        """Return as many of the user's images as the most queries, and their ids: each once before any is moved."""
        seed, most = context.attacker.seed, self.queries[-1]
        order = torch.randperm(len(ids), generator=generator(seed, "extraction", user))
        places = order[torch.arange(most) % len(order)]
        still, again = plain[places].tensor_split([len(order)])
        moves = generator(seed, "extraction", "moves", user)
        moved = augment(again, shift, moves, flip=context.attacker.config.flip)
        return torch.cat([still, moved]), ids[places]

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        said: list[str] = []
        for channel in dict.fromkeys(str(row["channel"]) for row in rows):
            own = [row for row in rows if row["channel"] == channel]
            most = max(int(row["queries"]) for row in own)
            agreement = median(float(row["agreement"]) for row in own if row["queries"] == most)
            said.append(f"{100 * agreement:.1f}% with {channel} of {most} images")
        return f"A student of the hostile user's agrees with psi on test images in {', '.join(said)} (medians)."
