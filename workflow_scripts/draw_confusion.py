"""Draw confusion matrices (rule draw_confusion)."""

from telepathy.report.figures.confusion import draw_confusion
from telepathy.workflow import job_log

with job_log(snakemake):
    draw_confusion(
        snakemake.input.predictions,
        snakemake.params.labels,
        snakemake.params.names,
        pdf=snakemake.output.pdf,
        svg=snakemake.output.svg,
    )
