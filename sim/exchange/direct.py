"""The fast lane of a simulation: users call the provider, a named Ray actor, from within their training loop."""

from pathlib import Path
from typing import cast

from flwr.app import RecordDict

from sim.exchange.actors import find_actor, result_of
from sim.exchange.sessions import Call

PROVIDER = "provider"
"""The actor's role in its run."""


def provider_call(run: Path) -> Call:
    """Return the function that carries an encoded request to the provider's actor and its answer back."""
    actor = find_actor(run, PROVIDER)

    def call(message_type: str, content: RecordDict) -> RecordDict:
        return cast(RecordDict, result_of(actor.answer.remote(message_type, content)))

    return call


def provider_account(run: Path) -> tuple[str, list[dict[str, int]]]:
    """Return psi's digest as the provider's actor holds it, and what the actor was asked; an earlier one's is lost."""
    return cast(tuple[str, list[dict[str, int]]], result_of(find_actor(run, PROVIDER).account.remote()))
