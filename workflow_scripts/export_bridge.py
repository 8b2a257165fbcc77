"""Export a study's best bridge of one task (rule export_bridge)."""

from telepathy.bridges.export import export_bridge
from telepathy.workflow import job_log

with job_log(snakemake):
    best = export_bridge(snakemake.input.bridges, snakemake.params.licences, snakemake.output[0])
    print(f"exported {best}", flush=True)
