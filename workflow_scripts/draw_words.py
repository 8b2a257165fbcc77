"""Draw the words nearest to soft tokens (rule draw_words)."""

from telepathy.report.figures.inspection import draw_words
from telepathy.workflow import job_log

with job_log(snakemake):
    draw_words(
        snakemake.input.facts,
        snakemake.params.names,
        pdf=snakemake.output.pdf,
        svg=snakemake.output.svg,
    )
