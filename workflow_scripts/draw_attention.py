"""Draw what soft tokens read (rule draw_attention)."""

from telepathy.report.figures.inspection import draw_attention
from telepathy.workflow import job_log

with job_log(snakemake):
    draw_attention(
        snakemake.input.facts,
        snakemake.params.names,
        pdf=snakemake.output.pdf,
        svg=snakemake.output.svg,
    )
