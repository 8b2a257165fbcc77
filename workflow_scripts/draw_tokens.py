"""Draw accuracy over soft tokens (rule draw_tokens)."""

from telepathy.report.figures.accuracy import draw_tokens
from telepathy.workflow import job_log

with job_log(snakemake):
    draw_tokens(
        snakemake.input.statistics,
        snakemake.params.names,
        pdf=snakemake.output.pdf,
        svg=snakemake.output.svg,
    )
