# Telepathy: a table of contents. Studies, models and methods are in config.yaml, the work is in rules/ and telepathy/.
from snakemake.utils import min_version

min_version("9.25")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/resources.smk"
include: "rules/targets.smk"
include: "rules/own_helpers.smk"
include: "rules/fetch.smk"
include: "rules/encode.smk"
include: "rules/bridge.smk"
include: "rules/adapters.smk"
include: "rules/baselines.smk"
include: "rules/own.smk"
include: "rules/benchmark_inputs.smk"
include: "rules/benchmarks.smk"
include: "rules/statistics.smk"
include: "rules/report.smk"
include: "rules/tables.smk"
include: "rules/pictures.smk"
include: "rules/contents.smk"
include: "rules/figures.smk"
include: "rules/inspection.smk"
include: "rules/documents.smk"
include: "rules/export.smk"


localrules:
    all,
    fetch_model,
    fetch_data,
    cache_task,
    export_study,


rule all:
    default_target: True
    input:
        study_targets(config["study"]),
        documents_of(config["study"]),
