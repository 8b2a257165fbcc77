"""Write the LaTeX of a study's report (rule write_paper)."""

from pathlib import Path

from telepathy.report.document import write_paper
from telepathy.workflow import job_log

with job_log(snakemake):
    write_paper(
        snakemake.output[0],
        snakemake.params.about,
        {name: snakemake.input[name] for name in ("statistics", "claims", "costs")},
        snakemake.input.metrics,
        tables=[Path(table).name for table in snakemake.params.tables],
        figures=snakemake.params.figures,
    )
