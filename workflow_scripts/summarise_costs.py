"""Sum Snakemake's benchmark files by rule (rule summarise_costs)."""

from pathlib import Path

from telepathy.analysis.costs import summarise_costs
from telepathy.workflow import job_log

with job_log(snakemake):
    own = sorted(Path(snakemake.params.folder).glob("*/*.jsonl"))
    shared = [path for path in map(Path, snakemake.params.shared) if path.is_file()]
    summarise_costs([*shared, *own], snakemake.output[0])
