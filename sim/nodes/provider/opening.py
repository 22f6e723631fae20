"""How the provider's endpoint is opened, found again, and closed: files in a folder that only its node reads.

``job.json`` is the node's order to the process, ``open.json`` says where the process that took it up listens.
"""

import ipaddress
import json
import os
import secrets
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, RecordDict

from roles.common.files import read_json, write_atomically
from sim.exchange.job import Job, decode_job, encode_job
from sim.exchange.line import Access
from sim.exchange.messages import JOB, MessageError
from sim.exchange.rights import Asker
from sim.run.machine import node_folder

LOOPBACK = "127.0.0.1:0"
"""Where an endpoint is that no node config names: on this machine, at any port."""
_OPENING_S = 300.0
_CLOSING_S = 30.0
_LOOK_S = 0.1
_CERTIFIED = timedelta(days=365)


@dataclass(frozen=True)
class _Process:
    """A process, as told from a later one with its number."""

    pid: int
    began: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the process that has this number now."""
        return cls(pid, psutil.Process(pid).create_time())

    def lives(self) -> bool:
        """Return whether it is there still."""
        try:
            found = psutil.Process(self.pid)
            return found.create_time() == self.began and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Order:
    """What an endpoint is to serve."""

    job: Job
    host: str
    """By which nodes reach it; the certificate names it."""
    port: int
    node: _Process
    """Without which it is not needed."""
    tokens: dict[Asker, str]

    def address(self, port: int) -> str:
        """Return by what nodes reach a port."""
        return f"{_bracketed(self.host)}:{port}"

    @property
    def bind(self) -> str:
        """The address to listen at: this machine's own alone, where nodes are on it."""
        return _bracketed(self.host) if _loopback(self.host) else "[::]"

    def node_lives(self) -> bool:
        """Return whether the node that gave the order is there still."""
        return self.node.lives()

    def write(self, folder: Path) -> None:
        """Write it down for the process that takes it up."""
        tokens = [[*who, token] for who, token in self.tokens.items()]
        said = {
            "job": dict(encode_job(self.job)),
            "host": self.host,
            "port": self.port,
            "node": asdict(self.node),
            "tokens": tokens,
        }
        _private(folder)
        write_atomically(folder / "job.json", json.dumps(said))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the order that was written down."""
        said = read_json(folder / "job.json")
        job = decode_job(RecordDict({JOB: ConfigRecord(said["job"])}))
        tokens = {(role, index): token for role, index, token in said["tokens"]}
        return cls(job, said["host"], said["port"], _Process(**said["node"]), tokens)


@dataclass(frozen=True)
class Opened:
    """An endpoint that listens."""

    address: str
    certificate: str
    process: _Process

    @classmethod
    def here(cls, address: str, certificate: str) -> Self:
        """Return what this process opens."""
        return cls(address, certificate, _Process.of(os.getpid()))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the endpoint that listens, or None."""
        try:
            said = read_json(folder / "open.json")
        except FileNotFoundError:
            return None
        found = cls(**said | {"process": _Process(**said["process"])})
        return found if found.process.lives() else None

    @classmethod
    def is_mine(cls, folder: Path) -> bool:
        """Return whether the endpoint that listens is this process: nobody has closed it, or opened another."""
        found = cls.read(folder)
        return found is not None and found.process.pid == os.getpid()

    def write(self, folder: Path) -> None:
        """Say that it listens."""
        write_atomically(folder / "open.json", json.dumps(asdict(self)))

    @classmethod
    def withdraw(cls, folder: Path) -> None:
        """Say that this process listens no longer."""
        if cls.is_mine(folder):
            (folder / "open.json").unlink(missing_ok=True)


def opened(job: Job, place: str, node: int) -> dict[Asker, Access]:
    """Open the endpoint of a run, if it is not open, and return how each node reaches it.

    Args:
        place: ``host:port`` by which nodes reach this machine; port 0 is any that is free.
        node: process id of whatever lives as long as this node.

    Raises:
        MessageError: the place is none, or the endpoint does not start; what it said last.
    """
    folder, (host, port) = _folder(job), _parted(place)
    order = _order(job, folder, host, port, node)
    found = Opened.read(folder)
    if found is None:
        order.write(folder)
        found = _started(folder)
    return {who: Access(found.address, found.certificate, token) for who, token in order.tokens.items()}


def close(job: Job) -> None:
    """Have the endpoint of a run end, if it is open, and wait until it has written down what it was asked."""
    found = Opened.read(_folder(job))
    (_folder(job) / "open.json").unlink(missing_ok=True)
    deadline = time.monotonic() + _CLOSING_S
    while found is not None and found.process.lives() and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def certificate_for(host: str) -> tuple[bytes, bytes]:
    """Return a new private key and a certificate for it that names ``host``, both PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "veilsim provider")])
    known = x509.IPAddress(ipaddress.ip_address(host)) if _is_address(host) else x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _CERTIFIED)
        .add_extension(x509.SubjectAlternativeName([known]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)


def _folder(job: Job) -> Path:
    return node_folder(job.run, "provider") / "endpoint"


def _order(job: Job, folder: Path, host: str, port: int, node: int) -> Order:
    """Return an order with the tokens of an earlier one of the run, if there was one."""
    experiment = job.experiment
    askers = [("user", index) for index in range(experiment.user_count)]
    askers += [("evaluator", index) for index in range(max(1, experiment.runtime.evaluators))]
    tokens = {who: secrets.token_urlsafe(32) for who in askers}
    order = Order(job, host, port, _Process.of(node), tokens)
    return replace(order, tokens=tokens | Order.read(folder).tokens) if (folder / "job.json").is_file() else order


def _started(folder: Path) -> Opened:
    # Flower may have installed the app in a folder of its own, which no other process looks in.
    home = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    log = folder / "log.txt"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "sim.nodes.provider.endpoint", str(folder)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    deadline = time.monotonic() + _OPENING_S
    while time.monotonic() < deadline and process.poll() is None:
        if (found := Opened.read(folder)) is not None and found.process.pid == process.pid:
            return found
        time.sleep(_LOOK_S)
    process.kill()
    last = (log.read_text().strip().splitlines() or ["nothing"])[-1]
    raise MessageError(f"the provider's endpoint does not start; it said: {last}")


def _parted(place: str) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 2**16):
        raise MessageError(f"endpoint {place!r}: must be <host>:<port>, by which users reach the provider's machine")
    return host.strip("[]"), int(port)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
