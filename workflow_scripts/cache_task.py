"""Turn raw files into train, dev and test parquet (rule cache_task)."""

from telepathy.tasks.data import cache_task
from telepathy.tasks.spec import load_task
from telepathy.workflow import job_log

with job_log(snakemake):
    cache_task(load_task(snakemake.input.task), snakemake.input.raw, snakemake.output[0])
