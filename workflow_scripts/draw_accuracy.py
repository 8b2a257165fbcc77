"""Draw the accuracy of every method (rule draw_accuracy)."""

from telepathy.report.figures.accuracy import draw_accuracy
from telepathy.workflow import job_log

with job_log(snakemake):
    draw_accuracy(
        snakemake.input.statistics,
        snakemake.input.summary,
        snakemake.params.names,
        pdf=snakemake.output.pdf,
        svg=snakemake.output.svg,
    )
