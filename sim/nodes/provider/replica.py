"""The provider in the process of those who ask: what answers for a frozen psi has no state, but for the ledger.

Whatever does have state (users' own classifiers, what a curious provider remembers) is in the provider's folder, which
all its replicas share; so is what each of them has been asked, and which psi it holds.
"""

import json
import uuid
from collections.abc import Iterable
from pathlib import Path

from flwr.app import RecordDict

from roles.common.exchange import Answer, Request
from roles.common.files import read_json, write_atomically
from roles.provider.provider import Provider
from sim.config.errors import one_line
from sim.exchange.load import ProviderLoad
from sim.exchange.messages import content_size, refused, size_of
from sim.run.machine import node_folder


class Replica:
    """The provider of a run in this process.

    Args:
        run: the run's folder.
    """

    def __init__(self, provider: Provider, run: Path) -> None:
        self.provider, self.run, self._load = provider, run, ProviderLoad()
        self._page = _ledger(run) / f"{uuid.uuid4().hex}.json"

    def answer(self, request: Request) -> Answer:
        """Answer a request, as a provider at the other end of a wire would.

        Raises:
            ExchangeError: it refuses; one line that says why.
        """
        self._load.count(*size_of(request))
        try:
            return self.provider.answer(request)
        except ValueError as error:
            raise refused(one_line(error)) from error

    def count(self, requests: Iterable[RecordDict]) -> None:
        """Count encoded requests, which are answered otherwise."""
        for request in requests:
            self._load.count(*content_size(request))

    def keep_account(self) -> None:
        """Write into the ledger what was asked so far, and the digest of psi as it is now."""
        write_atomically(self._page, json.dumps({"digest": self.provider.digest(), "load": self._load.rows()}))


def ledger_of(run: Path) -> tuple[set[str], ProviderLoad]:
    """Return the digests of psi that the replicas of a run have held, and all that they were asked."""
    pages = [read_json(path) for path in sorted(_ledger(run).glob("*.json"))]
    return {page["digest"] for page in pages}, ProviderLoad(row for page in pages for row in page["load"])


def _ledger(run: Path) -> Path:
    return node_folder(run, "provider") / "ledger"
