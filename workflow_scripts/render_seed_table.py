"""Render how much the seeds of each method differ (rule render_seed_table)."""

from telepathy.report.result_tables import write_seed_table
from telepathy.workflow import job_log

with job_log(snakemake):
    write_seed_table(
        snakemake.input.summary,
        tasks=snakemake.params.tasks,
        methods=snakemake.params.methods,
        probes=snakemake.params.probes,
        name="table10_seeds",
        tex=snakemake.output.tex,
        csv=snakemake.output.csv,
        html=snakemake.output.html,
    )
