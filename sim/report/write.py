"""What a run leaves behind: its table, the figures of the paper, and a summary that says plainly what was hidden."""

from roles.common.files import write_atomically
from sim.config.experiment import Experiment
from sim.report.columns import columns_in_words
from sim.report.detection import report_detection
from sim.report.figures.run import draw_run
from sim.report.studies import beyond_verdicts, report_studies
from sim.report.summary import shown_users, summary_of
from sim.report.table import table_of
from sim.report.text import write_table
from sim.run.folder import RunFolder


def write_report(run: RunFolder, experiment: Experiment) -> str:
    """Write table, figures and summary into the run folder, and return the summary."""
    table = table_of(run, experiment)
    write_table(run.path, table)
    write_atomically(run.path / "columns.md", columns_in_words(table))
    shown = shown_users(table, experiment)
    found = report_studies(run, experiment) + beyond_verdicts(run, experiment, table)
    found += report_detection(run, experiment)
    summary = summary_of(run, experiment, table, shown, found)
    write_atomically(run.path / "summary.md", summary)
    # Last: a figure that cannot be drawn costs no words.
    draw_run(run, experiment, table, shown)
    return summary
