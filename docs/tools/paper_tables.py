"""The tables of PAPER.md, written from the rows that :mod:`paper_rows` collects."""

from collections.abc import Iterator, Sequence

import pandas as pd

from roles.evaluator.baselines import SEEN_SSIM
from sim.report.columns import attacks_in, title_of
from sim.report.summary import control_in_words, control_of
from sim.report.table import HIDDEN, HIDDEN_DB, best_of, guess_of
from sim.report.text import markdown, psnr_and_ssim, with_range

CLASSIFIERS = {"resnet20": "ResNet-20", "vgg16_bn": "VGG16-BN"}
MOST_RECOVERED = 0.01
"""The share of images that may be recovered where both claims are to hold."""
PROTECTIONS = ("plain", "network", "adversarial", "entropy", "tanaka", "block", "pixel", "gan")
"""In the order of the tables."""
TABLE_1 = {
    "plain": (91.23, 92.23),
    "proposed, alpha 0.005": (91.72, 91.94),
    "proposed, alpha 0.01": (91.41, 91.13),
    "proposed, alpha 0.05": (89.63, 18.67),
    "proposed, alpha 0.1": (39.92, 18.99),
    "Tanaka": (85.18, 85.79),
    "pixel-based": (90.99, 90.29),
}
"""Table I of the paper: accuracy in percent, for ResNet-20 and VGG16-BN."""


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows as the tables have them, the control last, whatever piece each was run in."""
    place = {protection: number for number, protection in enumerate(PROTECTIONS)}
    by = rows.assign(place=rows["protection"].map(place), recipe=rows["recipe"].fillna(""))
    columns = ["place", "recipe", "phi", "alpha", "method", "run", "seed"]
    order = by.sort_values([column for column in columns if column in by], kind="stable").index
    return rows.loc[order].reset_index(drop=True)


def networks(rows: pd.DataFrame) -> str:
    """Return, network by network, what it costs and shows, the most that can be had of it, and if both claims hold.

    Args:
        rows: of one budget.
    """
    own = rows[rows["protection"] == "network"]
    if own.empty:
        return "No network has been run yet."
    own = own.dropna(axis="columns", how="all")
    names = attacks_in(own)
    loss, most_ssim = HIDDEN
    lines, holding, controls = list[list[str]](), list[str](), list[str]()
    for title, all_of_one, of_one in _by_classifier(rows, own):
        control = control_of(all_of_one)
        controls.append(f"{title}: {control_in_words(all_of_one)}")
        for method, group in of_one.groupby("method", sort=False):
            gap = 100 * (group["accuracy"] - group["plain_accuracy"]).median()
            psnr, ssim = ((best_of(group, measure) - guess_of(group, measure)).median() for measure in ("psnr", "ssim"))
            recovered = group[[f"{name}_recovered" for name in names]].max(axis=1).median()
            both = gap >= -loss and psnr < HIDDEN_DB and ssim < most_ssim and recovered < MOST_RECOVERED
            # An inverse network that has not attacked a row cannot vouch for it.
            tried = control is not None and control[3] and group[f"itn_{control[0]}_ssim"].notna().all()
            said = ("yes" if tried else "attack too weak") if both else "no"
            cells = [*_measured(title, str(method), group, names), f"{psnr:+.1f}/{ssim:+.2f}", _seen_in_words(group)]
            lines.append([*cells, _verdict(group), said])
            holding += [f"{title}, {method}"] if said == "yes" else []
    found = f"Both claims hold at {len(holding)} of {len(lines)} settings{': ' if holding else ''}{'; '.join(holding)}."
    header = [*_header(names), "to be had - guess", "as seen", "verdict", "both hold"]
    return "\n".join([found, *controls, "", markdown(pd.DataFrame(lines, columns=header))])


def methods(rows: pd.DataFrame) -> str:
    """Return what all that is no network of the paper's costs, shows and gives back: keys, plain and blurred images.

    Args:
        rows: of one budget.
    """
    # Blurred images have no protection of a name.
    own = rows[~rows["protection"].isin(["network"])].dropna(axis="columns", how="all")
    names = attacks_in(own)
    lines = [
        [*_measured(title, str(method), group, names), _verdict(group)]
        for title, _, of_one in _by_classifier(rows, own)
        for method, group in of_one.groupby("method", sort=False)
    ]
    return markdown(pd.DataFrame(lines, columns=[*_header(names), "verdict"]))


def _by_classifier(rows: pd.DataFrame, own: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Yield each classifier's title, all its rows and those of its rows that are the table's own."""
    for classifier, title in CLASSIFIERS.items():
        of_one = own[own["classifier"] == classifier]
        if not of_one.empty:
            yield title, rows[rows["classifier"] == classifier], of_one


def _header(attacks: Sequence[str]) -> list[str]:
    titles = map(title_of, attacks)
    return ["psi", "method", "n", "paper, 200 epochs", "accuracy", "to plain", "protected", *titles]


def _measured(title: str, method: str, group: pd.DataFrame, attacks: Sequence[str]) -> list[str]:
    """Return what :func:`_header` names, of all repetitions of a method."""
    medians = group.median(numeric_only=True)
    accuracy, gap = 100 * group["accuracy"], 100 * (group["accuracy"] - group["plain_accuracy"])
    cells = [title, method.removeprefix("proposed, "), str(len(group)), _in_paper(method, title)]
    cells += [with_range(accuracy, ".2f"), with_range(gap, "+.2f"), psnr_and_ssim(medians, "protected")]
    return cells + [psnr_and_ssim(medians, name) + _shares(medians, name) for name in attacks]


def _in_paper(method: str, title: str) -> str:
    """Return the accuracy that Table I has of a method, with its gap to plain images."""
    known = next((paper for name, paper in TABLE_1.items() if _is_row(method, name)), None)
    if known is None:
        return "-"
    column = list(CLASSIFIERS.values()).index(title)
    return f"{known[column]:.2f} ({known[column] - TABLE_1['plain'][column]:+.2f})"


def _is_row(method: str, name: str) -> bool:
    """Return whether a method is the one that a row of the paper's table names, with whatever it leaves open."""
    rest = method.removeprefix(name)
    return rest in ("", ", relu1_2", ", relu2_2") or (name == "pixel-based" and method.startswith(name))


def _verdict(group: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(group["verdict"]))


def _seen_in_words(rows: pd.DataFrame) -> str:
    """Return how alike protected images are to plain ones as a person sees them, and how they were moved for that."""
    # Rows of earlier versions were looked at through moves alone.
    alike = rows.reindex(columns=["seen_ssim", "moved_ssim"]).bfill(axis=1).iloc[:, 0].median()
    if pd.isna(alike):
        return "-"
    ways = rows[["moved_down", "moved_right"]].drop_duplicates()
    # Where nothing is alike, the best way is chance.
    named = "; ".join(f"{down:+.0f}, {right:+.0f}" for down, right in ways.itertuples(index=False))
    return f"{alike:.2f} ({named})" if alike >= SEEN_SSIM else f"{alike:.2f}"


def _shares(medians: pd.Series, name: str) -> str:
    shares = [medians.get(f"{name}_{share}") for share in ("accuracy", "recovered")]
    return "".join("" if pd.isna(share) else f"/{100 * share:.1f}" for share in shares)
