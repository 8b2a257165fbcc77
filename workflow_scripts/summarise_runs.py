"""Gather all runs of a study into summary.csv (rule summarise_runs)."""

from telepathy.analysis.summary import summarise
from telepathy.workflow import job_log

with job_log(snakemake):
    summarise(snakemake.input.metrics, snakemake.output[0])
