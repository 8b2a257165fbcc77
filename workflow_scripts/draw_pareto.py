"""Draw accuracy over latency (rule draw_pareto)."""

from telepathy.report.figures.speed import draw_pareto
from telepathy.workflow import job_log

with job_log(snakemake):
    draw_pareto(
        snakemake.input.latency,
        snakemake.input.statistics,
        snakemake.params.task,
        snakemake.params.soft_tokens,
        snakemake.params.names,
        pdf=snakemake.output.pdf,
        svg=snakemake.output.svg,
    )
