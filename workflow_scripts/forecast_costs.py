"""Forecast the GPU-hours of a study from a rehearsal of it (rule forecast_costs)."""

from telepathy.benchmarks.forecast import forecast_costs
from telepathy.workflow import job_log

with job_log(snakemake):
    forecast_costs(
        snakemake.params.forecast,
        planned=snakemake.params.planned,
        rehearsed=snakemake.params.rehearsed,
        costs=snakemake.params.costs,
        logs=snakemake.params.logs,
        metrics=snakemake.input.metrics,
        target=snakemake.output[0],
    )
