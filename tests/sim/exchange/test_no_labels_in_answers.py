"""What a user can learn from the provider."""

import dataclasses

import torch

from roles.common.exchange import Gradient, ImageIds, Losses, LossGradient, LossValues, TrainingImages
from roles.common.labels import load_labels
from sim.exchange import messages
from sim.exchange.job import Job
from sim.exchange.messages import ARRAYS, decode_answer, encode_request
from sim.nodes.provider.serving import answer_one, build_provider
from sim.run.machine import store_of


def test_no_answer_to_a_training_user_has_a_field_for_labels() -> None:
    kinds = dict(messages._ANSWERS.values())
    fields = {kind.__name__: [field.name for field in dataclasses.fields(kind)] for kind in kinds}
    assert fields == {
        "ImageIds": ["train", "validation"],
        "Gradient": ["gradient", "loss", "correct"],
        "LossValues": ["loss", "correct"],
        "Predictions": ["labels"],  # of the service itself, for whatever images are sent
        "Memories": ["protected", "ids"],
        "Reconstructions": ["images"],
        "Theta": ["theta"],
    }
    for kind, schema in kinds.items():
        assert list(schema) == fields[kind.__name__]
    # Apart from ids, whatever is as long as the batch is the gradient; the rest is one number a batch.
    assert kinds[Gradient] == {"gradient": messages._IMAGES, "loss": float, "correct": int}
    assert kinds[LossValues] == {"loss": float, "correct": int}


def test_the_labels_of_a_batch_are_nowhere_in_the_providers_reply(job: Job) -> None:
    provider, store = build_provider(job), store_of(job.experiment)
    _, content = encode_request(TrainingImages(1))
    images = answer_one(provider, "query.images", content)
    assigned = decode_answer(images)
    assert isinstance(assigned, ImageIds)
    replies = [(images, load_labels(store.folder, "train")[assigned.train])]
    for split_name, ids in (("train", assigned.train), ("validation", assigned.validation)):
        batch = store.images(split_name)[ids].float() / 255  # type: ignore[index]
        request = LossGradient(batch, ids, 1, 0) if split_name == "train" else Losses(batch, ids)
        message_type, content = encode_request(request)
        replies.append((answer_one(provider, message_type, content), load_labels(store.folder, split_name)[ids]))  # type: ignore[arg-type]
    for reply, labels in replies:
        assert labels.unique().numel() > 5
        arrays = [array for record in reply.array_records.values() for array in record.values()]
        for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64):
            hidden = labels.to(dtype).numpy().tobytes()
            assert not any(hidden in array.data for array in arrays)
        values = [value for record in reply.config_records.values() for value in record.values()]
        assert all(isinstance(value, int | float | str) for value in values)
    # The gradient has the batch's shape and nothing besides; a loss has no array at all.
    gradient, loss = replies[1][0].array_records[ARRAYS], replies[2][0].array_records[ARRAYS]
    assert list(gradient) == ["gradient"]
    assert tuple(gradient["gradient"].shape) == (36, 3, store.side, store.side)
    assert list(loss) == []
