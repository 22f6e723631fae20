"""A step as it is first written with Flower: one blocking ``send_and_receive`` a hop, a user's state in its Context.

Three hops a step: users send x_hat, the provider sends gradients, users step. The arithmetic is veilsim's own.
"""

import json
import time
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from roles.common.augment import augment
from roles.common.batches import Batches
from roles.common.config.recipe import set_lr
from roles.common.exchange import LossGradient
from roles.common.features import Features
from roles.common.files import write_atomically
from roles.common.images import to_unit
from roles.common.process import settle
from roles.common.seeds import derived_seed, generator
from roles.common.unet import UNet
from roles.common.weights import digest
from roles.user.features import feature_loss
from sim.config.files import load_experiment
from sim.exchange.job import Job
from sim.exchange.messages import content_size, decode_answer, decode_tensors, encode_request, encode_tensors
from sim.nodes.provider.serving import answer_one, assign_images, replica_of
from sim.run.machine import compute_of, store_of
from sim.run.ownership import watch_owner
from sim.run.progress import Status

server = ServerApp()
client = ClientApp()
settle()


@server.main()
def main(grid: Grid, context: Context) -> None:
    watch_owner(int(context.run_config["owner"]))
    run = Path(str(context.run_config["run"]))
    experiment = load_experiment(run / "config.yaml")
    partition_of = {}
    for reply in grid.send_and_receive([_message(run, node, "query.who") for node in grid.get_node_ids()]):
        partition_of[reply.metadata.src_node_id] = int(reply.content.config_records["who"]["partition"])
    provider, *users = sorted(partition_of, key=lambda node: partition_of[node])
    ids = assign_images(Job(experiment, run))[0]
    steps = experiment.user.training.total_steps(Batches(ids, experiment.user.training.batch_size, 0).per_epoch)
    list(grid.send_and_receive([_message(run, provider, "query.warm")]))
    Status("users").write(run)
    began, carried = time.time(), 0
    for step in range(steps):
        forward = [_message(run, node, "query.forward", step) for node in users]
        asked = {reply.metadata.src_node_id: reply.content for reply in grid.send_and_receive(forward)}
        questions = [_message(run, provider, "query.gradient", step, asked[node]) for node in users]
        replies = list(grid.send_and_receive(questions))
        of = {question.metadata.message_id: node for question, node in zip(questions, users, strict=True)}
        answers = {of[reply.metadata.reply_to_message_id]: reply.content for reply in replies}
        list(grid.send_and_receive([_message(run, node, "query.step", step, answers[node]) for node in users]))
        carried += sum(content_size(each)[1] for each in (*asked.values(), *answers.values()))
    result = {"seconds": time.time() - began, "steps": steps * len(users), "bytes": carried, "digests": {}}
    replies = grid.send_and_receive([_message(run, node, "query.theta") for node in users])
    for reply in replies:
        user = str(users.index(reply.metadata.src_node_id))
        result["digests"][user] = digest(decode_tensors(reply.content["theta"]))
    write_atomically(run / "naive.json", json.dumps(result))
    Status("complete").write(run)


def _message(run: Path, node: int, kind: str, step: int = 0, content: RecordDict | None = None) -> Message:
    job = ConfigRecord({"run": str(run), "step": step})
    return Message(RecordDict({"job": job, **dict((content or RecordDict()).items())}), node, kind)


@client.query("who")
def who(message: Message, context: Context) -> Message:
    partition = int(context.node_config["partition-id"])
    return Message(RecordDict({"who": ConfigRecord({"partition": partition})}), reply_to=message)


@client.query("warm")
def warm(message: Message, context: Context) -> Message:
    replica_of(_job(message))
    return Message(RecordDict(), reply_to=message)


@client.query("forward")
def forward(message: Message, context: Context) -> Message:
    user = _User(message, context)
    ids, x = user.batch()
    with torch.no_grad(), user.compute.autocast():
        x_hat = user.h(x)
    return Message(encode_request(LossGradient(x_hat.contiguous(), ids, user.number, 0))[1], reply_to=message)


@client.query("gradient")
def gradient(message: Message, context: Context) -> Message:
    content = RecordDict({key: record for key, record in message.content.items() if key != "job"})
    return Message(answer_one(replica_of(_job(message)).provider, "query.loss_gradient", content), reply_to=message)


@client.query("step")
def step(message: Message, context: Context) -> Message:
    user = _User(message, context)
    content = RecordDict({key: record for key, record in message.content.items() if key != "job"})
    _, x = user.batch()
    with user.compute.autocast():
        x_hat = user.h(x)
        leaf = x_hat.detach().requires_grad_()
        loss = feature_loss(user.phi(leaf), user.phi(x))
    (of_features,) = torch.autograd.grad(loss, leaf)
    x_hat.backward(decode_answer(content).gradient - user.config.alpha * of_features)
    user.optimiser.step()
    user.keep()
    return Message(RecordDict(), reply_to=message)


@client.query("theta")
def theta(message: Message, context: Context) -> Message:
    return Message(RecordDict({"theta": context.state["theta"]}), reply_to=message)


def _job(message: Message) -> Job:
    run = Path(str(message.content.config_records["job"]["run"]))
    return Job(load_experiment(run / "config.yaml"), run)


class _User:
    """A user made anew for every message from what its Context holds."""

    def __init__(self, message: Message, context: Context) -> None:
        job = _job(message)
        self.number = int(context.node_config["partition-id"]) - 1
        self.at = int(message.content.config_records["job"]["step"])
        self.config, self.store = job.experiment.user, store_of(job.experiment)
        self.compute, self.context = compute_of(job.experiment), context
        self.seed = derived_seed(job.experiment.seed, "user", self.number)
        torch.manual_seed(derived_seed(self.seed, "theta"))
        self.h = self.compute.module(UNet(self.config.width, self.config.depth)).train()
        self.phi = self.compute.module(Features(self.config.features))
        self.optimiser = self.config.training.optimiser_for(self.h)
        self.ids = (
            decode_tensors(context.state["ids"])["ids"] if "ids" in context.state else assign_images(job)[self.number]
        )
        context.state["ids"] = encode_tensors({"ids": self.ids})
        if "theta" in context.state:
            self.h.load_state_dict(decode_tensors(context.state["theta"]))
            momentum = decode_tensors(context.state["momentum"])
            state = {int(index): {"momentum_buffer": value} for index, value in momentum.items()}
            self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        recipe = self.config.training
        batches = Batches(self.ids, recipe.batch_size, derived_seed(self.seed, "order"))
        set_lr(self.optimiser, recipe.lr_at(self.at, recipe.total_steps(batches.per_epoch)))
        ids = batches.ids_at(self.at)
        stream = generator(self.seed, "augment", self.at)
        images = augment(self.store.images("train")[ids], self.config.crop_padding, stream, flip=self.config.flip)
        return ids, self.compute.batch(to_unit(images))

    def keep(self) -> None:
        self.context.state["theta"] = encode_tensors(self.h.state_dict())
        momentum = self.optimiser.state_dict()["state"]
        self.context.state["momentum"] = encode_tensors(
            {str(index): entry["momentum_buffer"] for index, entry in momentum.items()}
        )
