"""Render an accuracy table of a study (rule render_accuracy_table)."""

from telepathy.report.tables import write_accuracy_table
from telepathy.workflow import job_log

with job_log(snakemake):
    write_accuracy_table(
        snakemake.input.summary,
        snakemake.input.statistics,
        tasks=snakemake.params.tasks,
        methods=snakemake.params.methods,
        kinds=snakemake.params.kinds,
        title=snakemake.params.title,
        name=snakemake.wildcards.table,
        tex=snakemake.output.tex,
        csv=snakemake.output.csv,
        html=snakemake.output.html,
    )
