"""What a run leaves behind: its table, the figures of the paper, and a summary that says plainly what was hidden."""

from sim.config import Experiment
from sim.progress import write_atomically
from sim.result_table import columns_of, table_of
from sim.run_figures import draw_run
from sim.runs import RunFolder
from sim.studies import report_studies
from sim.summary import shown_users, summary_of
from sim.tables import write_table


def write_report(run: RunFolder, experiment: Experiment) -> str:
    """Write table, figures and summary into the run folder, and return the summary."""
    table = table_of(run, experiment)
    write_table(run.path, table)
    write_atomically(run.path / "columns.md", columns_of(table))
    shown = shown_users(table, experiment)
    summary = summary_of(run, experiment, table, shown, report_studies(run, experiment))
    write_atomically(run.path / "summary.md", summary)
    # Last: a figure that cannot be drawn costs no words.
    draw_run(run, experiment, table, shown)
    return summary
