"""The studies that a config can ask for. A new one is a file beside these, and its class in :data:`StudyConfig`."""

from typing import Annotated

from pydantic import Field

from roles.evaluator.studies.collusion import Collusion
from roles.evaluator.studies.curious import Curious
from roles.evaluator.studies.extraction import Extraction
from roles.evaluator.studies.hijack import Hijack
from roles.evaluator.studies.inversion import Inversion
from roles.evaluator.studies.labels import LabelInference
from roles.evaluator.studies.ladder import Ladder
from roles.evaluator.studies.membership import Membership
from roles.evaluator.studies.pretrained import Pretrained
from roles.evaluator.studies.prior import Prior
from roles.evaluator.studies.retrieval import Retrieval
from roles.evaluator.studies.transfer import Transfer
from roles.evaluator.studies.utility import Utility

StudyConfig = Annotated[
    Collusion
    | Curious
    | Extraction
    | Hijack
    | Inversion
    | LabelInference
    | Ladder
    | Membership
    | Pretrained
    | Prior
    | Retrieval
    | Transfer
    | Utility,
    Field(discriminator="kind"),
]
