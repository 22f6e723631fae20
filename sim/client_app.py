"""The ClientApp: the same for every node; a message's type says what is asked, the node's role says who answers."""

import sys
from collections.abc import Callable
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from sim.evaluator_node import AttackSession, StudySession
from sim.messages import (
    ARRAYS,
    JOB,
    LOAD,
    METRICS,
    PROVIDER_TYPES,
    PUBLISHED,
    REQUEST,
    Job,
    MessageError,
    decode_job,
    decode_tensors,
    decode_ticket,
    merge,
    split,
)
from sim.nodes import Role, RoleName, role_of, settle, state_folder, user_name
from sim.progress import Heart
from sim.provider_node import answer_one, assign_images, facts_of, provider_of, trained_classifier
from sim.result_messages import decode_published, encode_curve, encode_load
from sim.runs import answer_published
from sim.sessions import Session, resume_relayed, run_direct, start_relayed
from sim.user_node import USER_SESSIONS, TestSession, TrainSession, ValidateSession, new_training, publication

app = ClientApp()
_heart = Heart()
settle()


def _job_for(message: Message, context: Context, *roles: RoleName) -> tuple[Job, Role]:
    """Return the job of a message and the node's role.

    Raises:
        MessageError: the message is not one for this role.
    """
    job = decode_job(message.content)
    role = role_of(context, job.experiment)
    evaluates = role.name == "provider" and job.experiment.runtime.evaluators == 0
    if role.name not in roles and not (evaluates and "evaluator" in roles):
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
    """Train psi, or find it trained; in a simulation, open the provider to calls, or start the users' homes."""
    job, _ = _job_for(message, context, "provider")
    assign_images(job)  # a partition that cannot be made is better known before psi is trained
    relayed = job.experiment.runtime.exchange == "relay"
    wait_for_homes = None
    if relayed and _have_homes():
        from sim.homes import open_homes

        wait_for_homes = open_homes(job)
    record = trained_classifier(job, _heart)
    if wait_for_homes is not None:
        wait_for_homes()
    if not relayed:
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
    """Say what psi's weights hash to, as proof that training users has not changed them, and what was asked of it.

    A relayed provider may be any process, and has not seen every request: the relay has.
    """
    job, _ = _job_for(message, context, "provider")
    if job.experiment.runtime.exchange == "direct":
        from sim.direct import provider_digest, provider_load

        digest, load = provider_digest(job.run), provider_load(job.run)
    else:
        digest, load = provider_of(job).digest(), []
    content = RecordDict({"psi": ConfigRecord({"digest": digest}), LOAD: encode_load(load)})
    return Message(content, reply_to=message)


def _answer(message: Message, context: Context) -> Message:
    job, _ = _job_for(message, context, "provider")
    requests = RecordDict({key: record for key, record in message.content.items() if "/" in key})
    provider, message_type = provider_of(job), message.metadata.message_type
    answers = {number: answer_one(provider, message_type, content) for number, content in split(requests).items()}
    return Message(merge(answers), reply_to=message)


for _action in (name.partition(".")[2] for name in PROVIDER_TYPES):
    app.query(_action)(_answer)


# ---- users -------------------------------------------------------------------------------------------------------


def _have_homes() -> bool:
    """Return whether users live in homes: in a worker of a simulation, where Ray runs; other nodes never import it."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _run_or_start(job: Job, session: Session, name: str) -> RecordDict:
    if job.experiment.runtime.exchange == "direct":
        from sim.direct import provider_call

        ask_provider = provider_call(job.run)

        def call(message_type: str, content: RecordDict) -> RecordDict:
            # In a simulation, the only place with direct calls, the ServerApp's run folder is everybody's.
            own = message_type == PUBLISHED
            return answer_published(job.run, content) if own else ask_provider(message_type, content)

        return run_direct(session, call)
    return start_relayed(session, _waiting_at(job, name))


def _waiting_at(job: Job, name: str) -> Path:
    return state_folder(job) / f"{name}.safetensors"


def _answer_in(message: Message) -> RecordDict:
    return RecordDict({key: record for key, record in message.content.items() if key not in (JOB, REQUEST)})


def _resume(message: Message, job: Job, new_session: Callable[[], Session], name: str) -> Message:
    ticket = decode_ticket(message.content)
    return Message(resume_relayed(new_session, _waiting_at(job, name), ticket, _answer_in(message)), reply_to=message)


def _start_user(message: Message, context: Context, kind: str) -> Message:
    job, role = _job_for(message, context, "user")
    if job.experiment.runtime.exchange == "relay" and _have_homes():
        from sim.homes import start_at_home

        return Message(start_at_home(job, role.index, kind, message.content), reply_to=message)
    session = USER_SESSIONS[kind](job, role.index, message.content, _heart)
    return Message(_run_or_start(job, session, f"{user_name(role.index)}-{kind}"), reply_to=message)


def _resume_user(message: Message, job: Job, user: int, kind: str, new_session: Callable[[], Session]) -> Message:
    if _have_homes():
        from sim.homes import resume_at_home

        reply = resume_at_home(job, user, kind, decode_ticket(message.content), _answer_in(message))
        return Message(reply, reply_to=message)
    return _resume(message, job, new_session, f"{user_name(user)}-{kind}")


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train h_theta, from the theta in the message or, if it holds none, on from this user's own."""
    return _start_user(message, context, "train")


@app.train("resume")
def resume_training(message: Message, context: Context) -> Message:
    """Go on training with the provider's answer."""
    job, role = _job_for(message, context, "user")
    user = role.index
    return _resume_user(message, job, user, "train", lambda: TrainSession(job, user, new_training(job, user), _heart))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Say how the theta in the message does on this user's validation images."""
    return _start_user(message, context, "validate")


@app.query("publish")
def publish(message: Message, context: Context) -> Message:
    """Publish h_theta: this user's own or, of a strategy that averages, the average in the message."""
    job, role = _job_for(message, context, "user")
    arrays = message.content.array_records.get(ARRAYS)
    average = decode_tensors(arrays) if arrays else None
    return Message(publication(job, role.index, average), reply_to=message)


@app.evaluate("test")
def test(message: Message, context: Context) -> Message:
    """Protect the test images and have the provider classify them."""
    job, role = _job_for(message, context, "user")
    session = TestSession(job, role.index, decode_tensors(message.content.array_records[ARRAYS]))
    return Message(_run_or_start(job, session, f"{user_name(role.index)}-test"), reply_to=message)


# ---- evaluators --------------------------------------------------------------------------------------------------


@app.evaluate("itn")
def attack(message: Message, context: Context) -> Message:
    """Attack one published transformer."""
    job, _ = _job_for(message, context, "evaluator")
    records = message.content.array_records
    theta = decode_tensors(records[ARRAYS]) if ARRAYS in records else {}
    predictions = decode_tensors(records["predictions"])["labels"] if "predictions" in records else None
    session = AttackSession(job, theta, predictions, _heart)
    return Message(_run_or_start(job, session, f"attack-{job.subject}"), reply_to=message)


@app.evaluate("study")
def study(message: Message, context: Context) -> Message:
    """Work on one part of a study."""
    job, _ = _job_for(message, context, "evaluator")
    session = StudySession(job, decode_published(message.content), _heart)
    return Message(_run_or_start(job, session, _study_name(job)), reply_to=message)


def _study_name(job: Job) -> str:
    return f"study-{job.subject.replace('/', '-')}"


@app.evaluate("resume")
def resume_evaluation(message: Message, context: Context) -> Message:
    """Go on with a user's validation or test, or with an attack, with the provider's answer."""
    job, role = _job_for(message, context, "user", "evaluator")
    if role.name != "user" and "/" in job.subject:
        return _resume(message, job, lambda: StudySession(job, [], _heart), _study_name(job))
    if role.name != "user":
        return _resume(message, job, lambda: AttackSession(job, {}, None, _heart), f"attack-{job.subject}")
    if job.subject == "test":
        return _resume(message, job, lambda: TestSession(job, role.index, {}), f"{user_name(role.index)}-test")
    return _resume_user(message, job, role.index, "validate", lambda: ValidateSession(job, role.index, None))
