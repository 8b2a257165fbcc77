"""Fetch the raw files of one task (rule fetch_data)."""

from pathlib import Path

from telepathy.tasks.fetching import fetch_data
from telepathy.workflow import job_log

with job_log(snakemake):
    fetch_data(
        snakemake.wildcards.task,
        snakemake.params.source,
        target=Path(snakemake.output[0]),
        downloads=Path(snakemake.params.downloads),
        pins=Path(snakemake.params.pins),
    )
