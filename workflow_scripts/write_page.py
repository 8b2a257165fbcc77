"""Write the page of a study (rule write_page)."""

from pathlib import Path

from telepathy.report.page import write_page
from telepathy.workflow import job_log

with job_log(snakemake):
    write_page(
        snakemake.output[0],
        snakemake.params.about,
        {Path(file).stem: file for file in snakemake.input.csv},
        snakemake.input.predictions,
        {Path(folder).name: folder for folder in snakemake.input.examples},
        tables=snakemake.input.tables,
        figures=snakemake.input.figures,
    )
