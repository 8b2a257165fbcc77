"""Render the declared comparisons of a study (rule render_statistics_table)."""

from telepathy.report.result_tables import write_statistics_table
from telepathy.workflow import job_log

with job_log(snakemake):
    write_statistics_table(
        snakemake.input.statistics,
        tasks=snakemake.params.tasks,
        methods=snakemake.params.methods,
        margin=snakemake.params.margin,
        name="table7_statistics",
        tex=snakemake.output.tex,
        csv=snakemake.output.csv,
        html=snakemake.output.html,
    )
