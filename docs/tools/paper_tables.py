"""The tables of PAPER.md, written from the rows that :mod:`paper_rows` collects."""

import pandas as pd
from paper_rows import BUDGETS, CONTROL_METHOD

from sim.report.columns import attacks_in, title_of
from sim.report.summary import control_in_words, control_of
from sim.report.table import GUESSES, HIDDEN, HIDDEN_DB, SEEN_SSIM, best_of, guess_of
from sim.report.text import markdown, psnr_and_ssim, with_range

CLASSIFIERS = {"resnet20": "ResNet-20", "vgg16_bn": "VGG16-BN"}
MOST_RECOVERED = 0.01
"""The share of images that may be recovered where "hidden", which is about medians, is to hold."""
PROTECTIONS = ("plain", "network", "tanaka", "pixel", "gan")
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


def table_1(rows: pd.DataFrame) -> str:
    """Return accuracies beside the paper's, and each gap to plain images in the same run beside the paper's gap.

    Networks of another width or training than their budget's have no place in it.
    """
    rows = rows[rows["recipe"].fillna("") == ""]
    budgets = [budget for budget in BUDGETS if budget in set(rows["budget"])]
    header, lines = ["method"], list[list[str]]()
    for name in CLASSIFIERS.values():
        header += [f"{name}: paper", "gap"]
        for budget in budgets:
            header += [f"ours, {budget}", "gap", "n"]
    for method in rows[rows["method"] != CONTROL_METHOD]["method"].drop_duplicates():
        known = next((paper for name, paper in TABLE_1.items() if _is_row(method, name)), None)
        cells = [method]
        for column, classifier in enumerate(CLASSIFIERS):
            if known is None:
                cells += ["-", "-"]
            else:
                cells += [f"{known[column]:.2f}", f"{known[column] - TABLE_1['plain'][column]:+.2f}"]
            for budget in budgets:
                own = rows[(rows["method"] == method) & (rows["classifier"] == classifier) & (rows["budget"] == budget)]
                cells += _measured(own)
        lines.append(cells)
    return markdown(pd.DataFrame(lines, columns=header))


def _is_row(method: str, name: str) -> bool:
    """Return whether a method is the one that a row of the paper's table names, with whatever it leaves open."""
    rest = method.removeprefix(name)
    return rest in ("", ", relu1_2", ", relu2_2") or (name == "pixel-based" and method.startswith(name))


def _measured(rows: pd.DataFrame) -> list[str]:
    if rows.empty:
        return ["-", "-", "0"]
    accuracy, gap = 100 * rows["accuracy"], 100 * (rows["accuracy"] - rows["plain_accuracy"])
    return [with_range(accuracy, ".2f"), with_range(gap, "+.2f"), str(len(rows))]


def attacks(rows: pd.DataFrame) -> str:
    """Return what each protection hides and each attack gets back, of one classifier and budget."""
    own = rows.dropna(axis="columns", how="all")
    names, lines = attacks_in(own), list[list[str]]()
    header = ["method", "accuracy", "protected", "class mean", "mean image", *map(title_of, names), "verdict"]
    for method, group in own.groupby("method", sort=False):
        medians = group.median(numeric_only=True)
        cells = [str(method), f"{100 * medians['accuracy']:.1f}"]
        cells += [psnr_and_ssim(medians, name) for name in ("protected", *GUESSES)]
        cells += [psnr_and_ssim(medians, name) + _shares(medians, name) for name in names]
        lines.append([*cells, ", ".join(dict.fromkeys(group["verdict"]))])
    return f"{control_in_words(rows)}\n\n{markdown(pd.DataFrame(lines, columns=header))}"


def holds(rows: pd.DataFrame) -> str:
    """Return, network by network, what it costs and the most that can be had of it, and at which both claims hold."""
    own = rows[rows["protection"] == "network"]
    if own.empty:
        return "No network has been run yet."
    own = own.dropna(axis="columns", how="all")
    names = attacks_in(own)
    control = control_of(rows)
    loss, most_ssim = HIDDEN
    lines, holding = list[list[str]](), list[str]()
    for method, group in own.groupby("method", sort=False):
        gap = 100 * (group["accuracy"] - group["plain_accuracy"]).median()
        psnr, ssim = ((best_of(group, measure) - guess_of(group, measure)).median() for measure in ("psnr", "ssim"))
        recovered = group[[f"{name}_recovered" for name in names]].max(axis=1).median()
        both = gap >= -loss and psnr < HIDDEN_DB and ssim < most_ssim and recovered < MOST_RECOVERED
        # An inverse network that has not attacked a row cannot vouch for it.
        tried = control is not None and control[3] and group[f"itn_{control[0]}_ssim"].notna().all()
        said = ("yes" if tried else "attack too weak") if both else "no"
        cells = [str(method), f"{gap:+.2f}", f"{psnr:+.1f}", f"{ssim:+.2f}", f"{100 * recovered:.1f}"]
        lines.append([*cells, _moved_in_words(group), said])
        holding += [str(method)] if said == "yes" else []
    found = f"Both hold at {len(holding)} of {len(lines)} settings{': ' if holding else ''}{'; '.join(holding)}."
    header = ["method", "accuracy - plain (points)", "PSNR to be had - guess (dB)", "SSIM", "images recovered (%)"]
    header += ["SSIM of pictures, moved (rows, columns)", "both hold"]
    return f"{found} {control_in_words(rows)}\n\n{markdown(pd.DataFrame(lines, columns=header))}"


def _moved_in_words(rows: pd.DataFrame) -> str:
    if "moved_ssim" not in rows or rows["moved_ssim"].isna().all():
        return "-"
    alike, ways = rows["moved_ssim"].median(), rows[["moved_down", "moved_right"]].drop_duplicates()
    # Where nothing is alike, the best way is chance.
    named = "; ".join(f"{down:+.0f}, {right:+.0f}" for down, right in ways.itertuples(index=False))
    return f"{alike:.2f} ({named})" if alike >= SEEN_SSIM else f"{alike:.2f}"


def _shares(medians: pd.Series, name: str) -> str:
    shares = [medians.get(f"{name}_{share}") for share in ("accuracy", "recovered")]
    return "".join("" if pd.isna(share) else f"/{100 * share:.1f}" for share in shares)
