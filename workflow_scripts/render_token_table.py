"""Render the accuracy by number of soft tokens (rule render_token_table)."""

from telepathy.report.result_tables import write_token_table
from telepathy.workflow import job_log

with job_log(snakemake):
    write_token_table(
        snakemake.input.statistics,
        tasks=snakemake.params.tasks,
        methods=snakemake.params.methods,
        name="table5_tokens",
        tex=snakemake.output.tex,
        csv=snakemake.output.csv,
        html=snakemake.output.html,
    )
