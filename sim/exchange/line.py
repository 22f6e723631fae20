"""A line to the provider's own endpoint: requests and answers on one gRPC stream, within one Flower message.

A deployment's SuperNodes look for messages every few seconds and start a process for each, which is hundreds of times
what a training step takes. So the provider's node serves the same requests on an endpoint of its own. The address, the
certificate and a token for each node travel in Flower messages: whom Flower lets in may ask.
"""

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from flwr.app import ConfigRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from roles.common.exchange import Answer, Request
from sim.config.errors import one_line
from sim.exchange.messages import MessageError, decode_answer, encode_request, refused

ACCESS = "access"
"""Name of the record by which a node is told how to reach the endpoint."""
METHOD = "/veilsim.Provider/Ask"
TOKEN = "token"
"""The metadata under which a line names whoever opened it."""
UNLIMITED: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
"""What gRPC itself lets through: how much the provider takes, it says itself (provider.limits)."""
_KEEPALIVE = [
    # A machine that is gone says nothing: it is found out within half a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
_REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""What the endpoint ends a line with on purpose: another way would lead to the same."""
_TYPE = "type"


class LineDown(OSError):
    """The endpoint is gone or refuses the line; what was asked can be asked again by another way."""


@dataclass(frozen=True)
class Access:
    """How one node reaches the provider's endpoint."""

    address: str
    """Host and port."""
    certificate: str
    """PEM; the only one that the endpoint is taken to have."""
    token: str
    """This node's own, and secret."""

    def encode(self) -> ConfigRecord:
        """Return it as a record of a message."""
        return ConfigRecord({"address": self.address, "certificate": self.certificate, "token": self.token})


def access_in(content: RecordDict) -> Access | None:
    """Return how the provider's endpoint is reached, where a message says so.

    Raises:
        MessageError: it says something else.
    """
    record = content.config_records.get(ACCESS)
    if record is None:
        return None
    values = [record.get(name) for name in ("address", "certificate", "token")]
    if not all(isinstance(value, str) for value in values):
        raise MessageError("the message says in part how the provider's endpoint is reached: expected three strings")
    return Access(*(str(value) for value in values))


def to_bytes(kind: str, content: RecordDict) -> bytes:
    """Return what crosses a line: a message type and a content."""
    framed = RecordDict({_TYPE: ConfigRecord({_TYPE: kind}), **dict(content.items())})
    return bytes(recorddict_to_proto(framed).SerializeToString())


def from_bytes(data: bytes) -> tuple[str, RecordDict]:
    """Undo :func:`to_bytes`.

    Raises:
        MessageError: these bytes are no message.
    """
    try:
        content = recorddict_from_proto(ProtoRecordDict.FromString(data))
        kind = content.config_records[_TYPE][_TYPE]
        del content[_TYPE]
    except Exception as error:  # whatever protobuf and Flower raise on bytes that another party has made up
        raise MessageError(f"a message on the line cannot be read ({one_line(error)})") from error
    return str(kind), content


class Line:
    """An open line; one question at a time.

    Args:
        access: to the provider's endpoint.
    """

    def __init__(self, access: Access) -> None:
        trusted = grpc.ssl_channel_credentials(access.certificate.encode())
        self._channel = grpc.secure_channel(access.address, trusted, [*UNLIMITED, *_KEEPALIVE])
        self._questions: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call: Callable[..., Iterator[bytes]] = self._channel.stream_stream(METHOD)
        self._answers = call(iter(self._questions.get, None), metadata=((TOKEN, access.token),))

    def ask(self, request: Request) -> Answer:
        """Return the provider's answer.

        Raises:
            ExchangeError: the provider refused the request; its reason.
            LineDown: the line is gone.
        """
        self._questions.put(to_bytes(*encode_request(request)))
        try:
            data = next(self._answers)
        except StopIteration as error:
            raise LineDown("the provider's endpoint has hung up") from error
        except grpc.RpcError as error:
            reason = " ".join(str(error.details() or error.code()).split())
            if error.code() in _REFUSALS:
                raise refused(reason) from error
            raise LineDown(f"the provider's endpoint cannot be reached ({reason})") from error
        return decode_answer(from_bytes(data)[1])

    def close(self) -> None:
        """Hang up."""
        self._questions.put(None)
        self._channel.close()

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *raised: Any) -> None:
        self.close()
