"""Draw where the time goes (rule draw_latency)."""

from telepathy.report.figures.speed import draw_latency
from telepathy.workflow import job_log

with job_log(snakemake):
    draw_latency(
        snakemake.input.latency,
        pdf=snakemake.output.pdf,
        svg=snakemake.output.svg,
    )
