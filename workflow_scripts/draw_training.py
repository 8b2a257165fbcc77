"""Draw training curves (rule draw_training)."""

from telepathy.report.figures.training import draw_training
from telepathy.workflow import job_log

with job_log(snakemake):
    draw_training(
        snakemake.input.bridges,
        snakemake.params.names,
        pdf=snakemake.output.pdf,
        svg=snakemake.output.svg,
    )
