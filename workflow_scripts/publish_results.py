"""Copy the csv files of a study into the documentation (rule publish_results)."""

from telepathy.files import copy_file
from telepathy.workflow import job_log

with job_log(snakemake):
    for source, target in zip(snakemake.input.results, snakemake.output, strict=True):
        copy_file(source, target)
