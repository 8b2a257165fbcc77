"""Render the scorecard of a study (rule render_claims_table)."""

from telepathy.report.result_tables import write_claims_table
from telepathy.workflow import job_log

with job_log(snakemake):
    write_claims_table(
        snakemake.input.claims,
        margin=snakemake.params.margin,
        name="table8_claims",
        tex=snakemake.output.tex,
        csv=snakemake.output.csv,
        html=snakemake.output.html,
    )
