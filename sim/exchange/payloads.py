"""What replies bring home: learning curves, the provider's load, results of attacks and of studies, as records.

The messages themselves are listed in ``messages.py``.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from roles.common.weights import State
from roles.evaluator.results import AttackResult, Findings, Measured, Seen
from sim.config.errors import one_line
from sim.exchange.messages import ARRAYS, METRICS, MessageError, decode_tensors, encode_tensors

FINDINGS = "findings"
_SHARES = ("recognised", "retrieved")
"""Of :class:`Measured`, what one number says of a set of images and what versions before did not measure."""


def encode_curve(curve: Sequence[Mapping[str, float]]) -> MetricRecord:
    """Encode a learning curve column by column; a value that a row lacks becomes NaN."""
    keys = list(dict.fromkeys(key for row in curve for key in row))
    return MetricRecord({key: [float(row.get(key, math.nan)) for row in curve] for key in keys})


def decode_curve(record: MetricRecord) -> list[dict[str, float]]:
    """Undo :func:`encode_curve`; NaN values are left out of their row.

    Raises:
        MessageError: the columns are no lists of one length.
    """
    columns = {key: values for key, values in record.items() if isinstance(values, list)}
    length = max((len(values) for values in columns.values()), default=0)
    if len(columns) < len(record) or any(len(values) < length for values in columns.values()):
        raise MessageError(f"a learning curve's columns must be lists of one length: {', '.join(sorted(record))}")
    return [
        {key: values[row] for key, values in columns.items() if not math.isnan(values[row])} for row in range(length)
    ]


def decode_load(record: MetricRecord) -> list[dict[str, int]]:
    """Return the rows of :class:`sim.exchange.load.ProviderLoad`, which were encoded as a curve is.

    Raises:
        MessageError: the columns are no lists of one length.
    """
    return [{key: int(value) for key, value in row.items()} for row in decode_curve(record)]


def encode_attack(result: AttackResult) -> RecordDict:
    """Encode everything that an evaluator found out about one published protection."""
    tensors, numbers = taken_apart(result)
    return RecordDict({ARRAYS: encode_tensors(tensors), **numbers})


def decode_attack(content: RecordDict) -> AttackResult:
    """Undo :func:`encode_attack`.

    Raises:
        MessageError: the reply is not an attack's.
    """
    if ARRAYS not in content.array_records:
        raise MessageError("the evaluator's reply carries no measures")
    return put_together(decode_tensors(content.array_records[ARRAYS]), content.metric_records)


def taken_apart(result: AttackResult) -> tuple[State, dict[str, MetricRecord]]:
    """Return the tensors and the numbers that the result of an attack is sent and kept as."""
    tensors: State = {}
    numbers = MetricRecord()
    for name, measured in _measured(result).items():
        tensors[f"{name}/psnr"] = measured.psnr
        tensors[f"{name}/ssim"] = measured.ssim
        if measured.lpips is not None:
            tensors[f"{name}/lpips"] = measured.lpips
        if measured.accuracy is not None:
            numbers[name] = measured.accuracy
        for of in _SHARES:
            if (share := getattr(measured, of)) is not None:
                numbers[f"{name}/{of}"] = share
    if (seen := result.seen) is not None:
        tensors |= {"seen/ssim": seen.ssim, "seen/shown": seen.shown}
        tensors["seen/move"] = torch.tensor([seen.down, seen.right])
    tensors |= {f"picture/{name}": images for name, images in result.pictures.items()}
    curves = {f"curve/{name}": encode_curve(curve) for name, curve in result.curves.items()}
    return tensors, {METRICS: numbers, **curves}


def put_together(tensors: State, numbers: Mapping[str, MetricRecord]) -> AttackResult:
    """Undo :func:`taken_apart`.

    Raises:
        MessageError: a measure is missing.
    """
    if METRICS not in numbers:
        raise MessageError("the evaluator's reply carries no measures")
    shares = {name: cast(float, share) for name, share in numbers[METRICS].items()}
    names = [name.removesuffix("/psnr") for name in tensors if name.endswith("/psnr")]
    needed = ["protected/psnr", *(f"{name}/ssim" for name in names)]
    if missing := [name for name in needed if name not in tensors]:
        raise MessageError(f"the evaluator's reply lacks {', '.join(missing)}")
    measured = {
        name: Measured(
            psnr=tensors[f"{name}/psnr"],
            ssim=tensors[f"{name}/ssim"],
            lpips=tensors.get(f"{name}/lpips"),
            accuracy=shares.get(name),
            **{of: shares.get(f"{name}/{of}") for of in _SHARES},
        )
        for name in names
    }
    return AttackResult(
        protected=measured["protected"],
        seen=_seen(tensors),
        estimates=_group(measured, "itn/"),
        baselines=_group(measured, "baseline/"),
        curves={
            name.removeprefix("curve/"): decode_curve(record)
            for name, record in numbers.items()
            if name.startswith("curve/")
        },
        pictures={n.removeprefix("picture/"): t for n, t in tensors.items() if n.startswith("picture/")},
    )


@dataclass(frozen=True)
class StudyPart:
    """One part of a study, and among whom it is done."""

    kind: str
    part: str
    published: list[int]
    """The users that have published."""


def encode_study(study: StudyPart) -> ConfigRecord:
    """Encode which part of a study an evaluator is to do."""
    return ConfigRecord({"kind": study.kind, "part": study.part, "users": study.published})


def decode_study(content: RecordDict) -> StudyPart:
    """Return which part of a study a message asks for.

    Raises:
        MessageError: the message does not say, or nobody has published.
    """
    record = content.config_records.get("study", ConfigRecord())
    kind, part, users = (record.get(name) for name in ("kind", "part", "users"))
    if not (isinstance(kind, str) and isinstance(part, str) and isinstance(users, list) and users):
        raise MessageError("a study needs to be told its kind, its part, and which users have published")
    return StudyPart(kind, part, [int(cast(int, user)) for user in users])


def encode_subject(name: str, known: Sequence[str] = ()) -> ConfigRecord:
    """Encode the name of what an evaluator is to attack, and of the attacks whose estimates are ``known`` already."""
    return ConfigRecord({"name": name, "known": list(known)})


def decode_subject(content: RecordDict) -> tuple[str, list[str]]:
    """Return the name of what a message asks to have attacked, and of the attacks that are known already.

    Raises:
        MessageError: the message does not say.
    """
    record = content.config_records.get("subject", ConfigRecord())
    name, known = record.get("name"), record.get("known", [])
    if not isinstance(name, str) or not isinstance(known, list):
        raise MessageError("an attack needs to be told its subject, and which attacks on it are known")
    return name, [str(one) for one in known]


def encode_findings(findings: Findings, pictures: State | None = None) -> RecordDict:
    """Encode what a part of a study has found, and its pictures by name, uint8 ``(K, 3, H, W)``."""
    rows = ConfigRecord({"rows": json.dumps(findings)})
    return RecordDict({FINDINGS: rows, **({ARRAYS: encode_tensors(pictures)} if pictures else {})})


def decode_findings(content: RecordDict) -> Findings:
    """Undo :func:`encode_findings`.

    Raises:
        MessageError: the reply is not that of a study.
    """
    record = content.config_records.get(FINDINGS)
    if record is None:
        raise MessageError("the evaluator's reply carries no findings")
    try:
        rows: Findings = json.loads(str(record.get("rows")))
    except ValueError as error:
        raise MessageError(f"the rows of a study cannot be read ({one_line(error)})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MessageError("the rows of a study must be a list of columns and values")
    return rows


def decode_pictures(content: RecordDict) -> State:
    """Return the pictures that came with :func:`encode_findings`, none or more.

    Raises:
        MessageError: they are no bitmaps.
    """
    pictures = decode_tensors(content.array_records[ARRAYS]) if ARRAYS in content.array_records else {}
    for name, images in pictures.items():
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            got = f"{images.dtype} {tuple(images.shape)}"
            raise MessageError(f"picture {name!r} of a study is {got}, expected torch.uint8 (K, 3, H, W)")
    return pictures


def _measured(result: AttackResult) -> dict[str, Measured]:
    return {
        "protected": result.protected,
        **{f"itn/{name}": measured for name, measured in result.estimates.items()},
        **{f"baseline/{name}": measured for name, measured in result.baselines.items()},
    }


def _seen(tensors: State) -> Seen | None:
    if not {"seen/ssim", "seen/shown", "seen/move"} <= tensors.keys():
        return None
    down, right = tensors["seen/move"].tolist()
    return Seen(tensors["seen/ssim"], tensors["seen/shown"], down, right)


def _group(measured: Mapping[str, Measured], prefix: str) -> dict[str, Measured]:
    return {name.removeprefix(prefix): value for name, value in measured.items() if name.startswith(prefix)}
