"""The ClientApp: the same for every node; a message's type says what is asked, the node's role says who answers."""

from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from sim.evaluator_node import AttackSession
from sim.messages import (
    ARRAYS,
    METRICS,
    Job,
    MessageError,
    decode_job,
    decode_tensors,
    decode_ticket,
    encode_curve,
    merge,
    split,
)
from sim.nodes import Role, RoleName, role_of, state_folder, user_name
from sim.progress import Heart
from sim.provider_node import answer_one, assign_images, facts_of, provider_of, trained_classifier
from sim.sessions import Session, resume_relayed, run_direct, start_relayed
from sim.user_node import TestSession, TrainSession, ValidateSession, new_training, publication, training_after

app = ClientApp()
_heart = Heart()


def _job_for(message: Message, context: Context, *roles: RoleName) -> tuple[Job, Role]:
    """Return the job of a message and the node's role.

    Raises:
        MessageError: the message is not one for this role.
    """
    job = decode_job(message.content)
    role = role_of(context, job.experiment)
    # Without evaluator nodes the provider's evaluates.
    if role.name not in roles and not ("evaluator" in roles and job.experiment.runtime.evaluators == 0):
        raise MessageError(
            f"message {message.metadata.message_type!r} is for {' or '.join(roles)}, not for {role.name}"
        )
    return job, role


# ---- any node ----------------------------------------------------------------------------------------------------


@app.query("role")
def role(message: Message, context: Context) -> Message:
    """Say which role this node has."""
    mine = role_of(context, decode_job(message.content).experiment)
    # A deployment names the role; a simulation gives a number only.
    simulated = "role" not in context.node_config
    record = ConfigRecord({"name": mine.name, "index": mine.index, "simulated": simulated})
    return Message(RecordDict({"role": record}), reply_to=message)


# ---- provider ----------------------------------------------------------------------------------------------------


@app.train("classifier")
def train_psi(message: Message, context: Context) -> Message:
    """Train psi, or find it trained; in a direct exchange, open the provider to calls."""
    job, _ = _job_for(message, context, "provider")
    assign_images(job)  # a partition that cannot be made is better known before psi is trained
    record = trained_classifier(job, _heart)
    if job.experiment.runtime.exchange == "direct":
        from sim.direct import open_provider

        open_provider(job)
    content = RecordDict(
        {
            METRICS: MetricRecord(facts_of(record)),
            "psi": ConfigRecord({"digest": record.digest}),
            "curve": encode_curve(record.curve),
        }
    )
    return Message(content, reply_to=message)


@app.query("psi")
def psi_digest(message: Message, context: Context) -> Message:
    """Say what psi's weights hash to, as proof that training users has not changed them."""
    job, _ = _job_for(message, context, "provider")
    if job.experiment.runtime.exchange == "direct":
        from sim.direct import provider_digest

        digest = provider_digest(job.run)
    else:
        digest = provider_of(job).digest()
    return Message(RecordDict({"psi": ConfigRecord({"digest": digest})}), reply_to=message)


def _answer(message: Message, context: Context) -> Message:
    job, _ = _job_for(message, context, "provider")
    requests = RecordDict({key: record for key, record in message.content.items() if "/" in key})
    provider, message_type = provider_of(job), message.metadata.message_type
    answers = {number: answer_one(provider, message_type, content) for number, content in split(requests).items()}
    return Message(merge(answers), reply_to=message)


for _action in ("images", "loss_gradient", "loss", "classify"):
    app.query(_action)(_answer)


# ---- users -------------------------------------------------------------------------------------------------------


def _begin(job: Job, session: Session, name: str) -> RecordDict:
    if job.experiment.runtime.exchange == "direct":
        from sim.direct import provider_call

        return run_direct(session, provider_call(job.run))
    return start_relayed(session, state_folder(job) / f"{name}.safetensors")


def _resume(message: Message, job: Job, new_session: Callable[[], Session], name: str) -> Message:
    answer = RecordDict({key: record for key, record in message.content.items() if key not in ("config", "request")})
    path = state_folder(job) / f"{name}.safetensors"
    return Message(resume_relayed(new_session, path, decode_ticket(message.content), answer), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train h_theta, from the theta in the message or, if it holds none, on from this user's own."""
    job, role = _job_for(message, context, "user")
    arrays = message.content.array_records.get(ARRAYS)
    # An averaged theta belongs to the end of the round before; a user's own training goes on from wherever it is.
    training = training_after(job, role.index, job.round - 1 if arrays else job.round + job.rounds - 1)
    if arrays:
        training.adopt(decode_tensors(arrays))
    session = TrainSession(job, role.index, training, _heart, averaged=bool(arrays))
    return Message(_begin(job, session, f"{user_name(role.index)}-train"), reply_to=message)


@app.train("resume")
def resume_training(message: Message, context: Context) -> Message:
    """Go on training with the provider's answer."""
    job, role = _job_for(message, context, "user")
    user = role.index
    return _resume(
        message, job, lambda: TrainSession(job, user, new_training(job, user), _heart), f"{user_name(user)}-train"
    )


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Say how the theta in the message does on this user's validation images."""
    job, role = _job_for(message, context, "user")
    arrays = message.content.array_records.get(ARRAYS)
    session = ValidateSession(job, role.index, decode_tensors(arrays) if arrays else None)
    return Message(_begin(job, session, f"{user_name(role.index)}-validate"), reply_to=message)


@app.query("publish")
def publish(message: Message, context: Context) -> Message:
    """Publish h_theta."""
    job, role = _job_for(message, context, "user")
    return Message(publication(job, role.index), reply_to=message)


@app.evaluate("test")
def test(message: Message, context: Context) -> Message:
    """Protect the test images and have the provider classify them."""
    job, role = _job_for(message, context, "user")
    session = TestSession(job, decode_tensors(message.content.array_records[ARRAYS]))
    return Message(_begin(job, session, f"{user_name(role.index)}-test"), reply_to=message)


# ---- evaluators --------------------------------------------------------------------------------------------------


@app.evaluate("itn")
def attack(message: Message, context: Context) -> Message:
    """Attack one published transformer."""
    job, _ = _job_for(message, context, "evaluator")
    records = message.content.array_records
    theta = decode_tensors(records[ARRAYS]) if ARRAYS in records else None
    predictions = decode_tensors(records["predictions"])["labels"] if "predictions" in records else None
    session = AttackSession(job, theta, predictions, _heart)
    return Message(_begin(job, session, f"attack-{job.subject}"), reply_to=message)


@app.evaluate("resume")
def resume_evaluation(message: Message, context: Context) -> Message:
    """Go on with a user's validation or test, or with an attack, with the provider's answer."""
    job, role = _job_for(message, context, "user", "evaluator")
    if role.name != "user":
        return _resume(message, job, lambda: AttackSession(job, None, None, _heart), f"attack-{job.subject}")
    name = f"{user_name(role.index)}-{job.subject or 'validate'}"
    if job.subject == "test":
        return _resume(message, job, lambda: TestSession(job, {}), name)
    return _resume(message, job, lambda: ValidateSession(job, role.index, None), name)
