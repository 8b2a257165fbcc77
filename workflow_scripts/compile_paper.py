"""Compile a study's report (rule compile_paper)."""

from telepathy.report.document import compile_paper
from telepathy.workflow import job_log

with job_log(snakemake):
    compile_paper(snakemake.input.source, snakemake.output[0])
