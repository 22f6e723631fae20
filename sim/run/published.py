"""What a run folder answers: requests for thetas that users have published."""

from pathlib import Path

from flwr.app import RecordDict

from roles.common.exchange import Published, Theta
from sim.exchange.messages import PUBLISHED, decode_request, encode_answer, encode_refusal
from sim.run.folder import RunFolder


def published(run: Path, request: Published) -> Theta:
    """Return the theta that a user has published in a run; a ValueError where it has not."""
    return Theta(RunFolder(run).theta(request.user))


def answer_published(run: Path, content: RecordDict) -> RecordDict:
    """Answer an encoded request for a theta that was published in a run, or say in one line why not."""
    try:
        request = decode_request(PUBLISHED, content)
        assert isinstance(request, Published)
        return encode_answer(published(run, request))
    except ValueError as error:
        return encode_refusal(error)
