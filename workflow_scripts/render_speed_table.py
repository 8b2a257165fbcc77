"""Render the speed table of a study (rule render_speed_table)."""

from telepathy.report.speed import write_speed_table
from telepathy.workflow import job_log

with job_log(snakemake):
    write_speed_table(
        snakemake.input.latency,
        study=snakemake.params.title,
        name="table4_speed",
        tex=snakemake.output.tex,
        csv=snakemake.output.csv,
        html=snakemake.output.html,
    )
