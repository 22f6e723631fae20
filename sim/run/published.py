"""What a run folder answers: requests for thetas that users have published."""

from pathlib import Path

from flwr.app import RecordDict

from roles.common.exchange import Published, Theta
from sim.exchange.messages import PUBLISHED, decode_request, encode_answer, encode_refusal
from sim.run.folder import RunFolder


def answer_published(path: Path, content: RecordDict) -> RecordDict:
    """Answer an encoded request for a theta that was published in the run ``path``, or say in one line why not."""
    try:
        request = decode_request(PUBLISHED, content)
        assert isinstance(request, Published)
        return encode_answer(Theta(RunFolder(path).theta(request.user)))
    except ValueError as error:
        return encode_refusal(error)
