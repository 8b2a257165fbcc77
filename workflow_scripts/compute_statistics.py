"""Compare the methods of a study (rule compute_statistics)."""

from telepathy.analysis.statistics import compute_statistics
from telepathy.workflow import job_log

with job_log(snakemake):
    compute_statistics(
        snakemake.input.predictions,
        snakemake.output[0],
        comparisons=snakemake.params.comparisons,
        columns=snakemake.params.columns,
        margin=snakemake.params.margin,
        draws=snakemake.params.draws,
    )
