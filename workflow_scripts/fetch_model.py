"""Fetch one model into a folder of safetensors (rule fetch_model)."""

from telepathy.models.sources import fetch_model
from telepathy.workflow import job_log

with job_log(snakemake):
    fetch_model(
        snakemake.wildcards.model,
        snakemake.params.source,
        target=snakemake.output[0],
        downloads=snakemake.params.downloads,
        pins=snakemake.params.pins,
    )
