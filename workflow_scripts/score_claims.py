"""Set the publication's claims beside what a study found (rule score_claims)."""

from telepathy.analysis.claims import score_claims
from telepathy.workflow import job_log

with job_log(snakemake):
    score_claims(
        snakemake.input.statistics,
        snakemake.output[0],
        tasks=snakemake.params.tasks,
        soft_tokens=snakemake.params.soft_tokens,
        models=snakemake.params.models,
        margin=snakemake.params.margin,
        latency=next(iter(snakemake.input.latency), None),
    )
