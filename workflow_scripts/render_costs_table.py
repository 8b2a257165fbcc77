"""Render what a study cost (rule render_costs_table)."""

from telepathy.report.result_tables import write_costs_table
from telepathy.workflow import job_log

with job_log(snakemake):
    write_costs_table(
        snakemake.input.costs,
        gpus=snakemake.params.gpus,
        name="table9_costs",
        tex=snakemake.output.tex,
        csv=snakemake.output.csv,
        html=snakemake.output.html,
    )
