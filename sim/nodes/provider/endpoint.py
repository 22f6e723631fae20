"""The provider's own endpoint: a process that answers users' requests at once, on a gRPC stream for each that asks.

``python -m sim.nodes.provider.endpoint FOLDER`` serves what ``FOLDER/job.json`` says (opening.py writes it) until its
node is gone, it is told to end, or nobody has asked for a while. One request is answered at a time, in the order in
which they came.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from roles.common.process import settle
from sim.exchange.line import METHOD, TOKEN, UNLIMITED, from_bytes, to_bytes
from sim.exchange.messages import MessageError, encode_refusal
from sim.exchange.rights import Gate
from sim.nodes.provider.opening import Opened, Order, certificate_for
from sim.nodes.provider.replica import Replica
from sim.nodes.provider.serving import answer_one, replica_of

_IDLE_S = 600.0
"""After so long without an open line an endpoint ends; whoever needs it then has it opened again."""
_MOST_LINES = 8
"""Of a node at once: in a simulation, each worker that acts for it has one. With one more, the oldest ends."""
_TAKEN_S = 30.0
"""How long it waits for a port that another process has, such as an endpoint that is ending."""
_SERVER = {
    # Else a second process could listen at the same port, and lines would end at either.
    "grpc.so_reuseport": 0,
    # Lines that are silent for long are asked whether they are there (line.py), more often than gRPC likes.
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.min_ping_interval_without_data_ms": 10_000,
    "grpc.http2.max_ping_strikes": 0,
}
_LOOK_S = 0.5
"""How often it looks whether it is still wanted."""
_KEEP_S = 3.0
"""How often it writes down what it was asked."""


class Endpoint:
    """Answers encoded requests, each of which it knows the sender of.

    Args:
        replica: makes the provider; called in the thread that answers, whose arithmetic it sets.
        gate: who may ask what, by the token of a line.
    """

    def __init__(self, replica: Callable[[], Replica], gate: Gate) -> None:
        self._gate = gate
        self._thread = ThreadPoolExecutor(1)
        self._replica = self._thread.submit(replica).result()
        self._lines: dict[str, list[asyncio.Event]] = {}
        """What ends each open line of a node, the oldest first."""
        self._last, self._answers = time.monotonic(), 0

    @property
    def idle_s(self) -> float:
        """Seconds since the last line was closed; 0 while one is open."""
        return 0.0 if self._lines else time.monotonic() - self._last

    async def lines(self, questions: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Serve one line to its end."""
        token = str(dict(context.invocation_metadata() or ()).get(TOKEN))
        if token not in self._gate.askers:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token of this line is no node's of this run")
            return
        over = asyncio.Event()
        open_ones = self._lines.setdefault(token, [])
        open_ones.append(over)
        if len(open_ones) > _MOST_LINES:
            open_ones.pop(0).set()
        ended, loop = asyncio.ensure_future(over.wait()), asyncio.get_running_loop()
        try:
            while (question := await _next(questions, ended)) is not None:
                yield await loop.run_in_executor(self._thread, self._answered, token, question)
            if over.is_set():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "this node has opened newer lines")
        finally:
            ended.cancel()
            if over in open_ones:
                open_ones.remove(over)
            if not open_ones:
                self._lines.pop(token, None)
            self._last = time.monotonic()

    def _answered(self, token: str, question: bytes) -> bytes:
        try:
            kind, content = from_bytes(question)
            self._gate.admit(token, kind, content)
        except MessageError as error:
            return to_bytes("answer", encode_refusal(error))
        self._answers += 1
        self._replica.count([content])
        return to_bytes("answer", answer_one(self._replica.provider, kind, content))

    def keep_account(self) -> None:
        """Write down what was asked, if anything was since this was done last."""
        answers, self._answers = self._answers, 0
        if answers:
            self._thread.submit(self._replica.keep_account).result()


async def _next(questions: AsyncIterator[bytes], ended: asyncio.Future[Any]) -> bytes | None:
    """Return the next question of a line, or None where there is none, or the line has ended."""

    async def arrived() -> bytes | None:
        return await anext(questions, None)

    coming = asyncio.ensure_future(arrived())
    await asyncio.wait({coming, ended}, return_when=asyncio.FIRST_COMPLETED)
    if coming.done():
        return coming.result()
    coming.cancel()
    return None


async def _bound(server: grpc.aio.Server, place: str, trusted: grpc.ServerCredentials) -> int:
    """Return the port that a server listens at; where another process has it, wait for that to end."""
    deadline = time.monotonic() + _TAKEN_S
    while True:
        try:
            return int(server.add_secure_port(place, trusted))
        except RuntimeError as error:
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"cannot listen at {place}: another process does, or this machine has it not"
                ) from error
            await asyncio.sleep(1)


async def serve(folder: Path) -> None:
    """Serve what the folder's order says until its end."""
    order = Order.read(folder)
    limits = order.job.experiment.provider.limits
    gate = Gate({token: who for who, token in order.tokens.items()}, limits)
    endpoint = Endpoint(lambda: replica_of(order.job), gate)
    most = {"grpc.max_receive_message_length": limits.message_mb * 2**20, **_SERVER}
    server = grpc.aio.server(options=list((dict(UNLIMITED) | most).items()))
    _, service, method = METHOD.split("/")
    handler: dict[str, Any] = {method: grpc.stream_stream_rpc_method_handler(endpoint.lines)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handler),))
    key, certificate = certificate_for(order.host)
    place, trusted = f"{order.bind}:{order.port}", grpc.ssl_server_credentials([(key, certificate)])
    port = await _bound(server, place, trusted)
    await server.start()
    Opened.here(order.address(port), certificate.decode()).write(folder)
    kept = time.monotonic()
    try:
        while order.node_lives() and Opened.is_mine(folder) and endpoint.idle_s < _IDLE_S:
            await asyncio.sleep(_LOOK_S)
            if time.monotonic() - kept > _KEEP_S:
                await asyncio.to_thread(endpoint.keep_account)
                kept = time.monotonic()
    finally:
        await server.stop(grace=1)
        await asyncio.to_thread(endpoint.keep_account)
        Opened.withdraw(folder)


if __name__ == "__main__":
    settle()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Path(sys.argv[1])))
