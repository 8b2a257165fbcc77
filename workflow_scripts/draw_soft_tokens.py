"""Draw soft tokens by label (rule draw_soft_tokens)."""

from telepathy.report.figures.inspection import draw_soft_tokens
from telepathy.workflow import job_log

with job_log(snakemake):
    draw_soft_tokens(
        snakemake.input.tables,
        snakemake.params.names,
        pdf=snakemake.output.pdf,
        svg=snakemake.output.svg,
    )
