"""From predictions to tables by rules: what is made, what is made again, and what a changed prediction changes."""

import pandas as pd
import pytest

from telepathy.files import read_json, sha256_of, write_json

pytestmark = pytest.mark.slow

RUN = "results/smoke/runs/movies/zero_shot_sender/k0/seed0/predictions.parquet"
TABLES = ["table1_classification", "table7_statistics", "table8_claims", "table9_costs"]
STUDY = ("--config", "study=smoke")


def jobs(house, *arguments):
    return {rule for rule, _ in house.snakemake("--dry-run", *arguments, *STUDY).jobs()}


def statistics(house):
    return pd.read_csv(house.path("results/smoke/statistics.csv"))


@pytest.mark.parametrize("kind", ["tex", "csv", "html"])
def test_the_study_has_its_tables_in_every_format(made, kind):
    for name in TABLES:
        assert made.path(f"results/smoke/tables/{name}.{kind}").stat().st_size > 0
    assert not made.path(f"results/smoke/tables/table5_tokens.{kind}").exists()


def test_accuracies_in_the_statistics_are_those_of_the_predictions(made):
    for row in statistics(made).query("statistic == 'accuracy_run'").to_dict("records"):
        folder = f"{row['task']}/{row['method']}/k{row['soft_tokens']:.0f}/seed{row['seed']:.0f}"
        frame = pd.read_parquet(made.path(f"results/smoke/runs/{folder}/predictions.parquet"))
        assert row["estimate"] == pytest.approx(100 * (frame["prediction"] == frame["label"]).mean(), abs=1e-4)


def test_the_bridge_is_compared_with_both_models(made):
    rows = statistics(made).query("statistic == 'difference' and family == 'main'")
    assert set(rows["versus"]) == {"zero_shot_sender", "zero_shot_receiver"}


def test_no_number_of_a_handful_of_examples_is_judged_as_the_publications(made):
    claims = pd.read_csv(made.path("results/smoke/claims.csv"))
    assert set(claims["scale"]) == {"different"}


def test_a_lost_table_is_made_again_and_nothing_else(made_copy):
    made_copy.path("results/smoke/tables/table8_claims.tex").unlink()
    documents = {"write_page", "compile_paper"}  # what shows the table; the latter only where LaTeX is
    assert {"render_claims_table", "all"} <= jobs(made_copy) <= {"render_claims_table", "all", *documents}


def test_an_edited_claim_reruns_the_scorecard_and_its_table(made_copy):
    with made_copy.path("telepathy/analysis/claims.yaml").open("a") as handle:
        handle.write("# An edit.\n")
    assert {"score_claims", "render_claims_table"} <= jobs(made_copy)
    assert not jobs(made_copy) & {"compute_statistics", "train_bridge", "render_statistics_table"}


def test_a_changed_prediction_changes_the_numbers_of_its_run_alone(made_copy):
    before = statistics(made_copy)
    frame = pd.read_parquet(made_copy.path(RUN))
    frame["prediction"] = frame["label"]
    frame.to_parquet(made_copy.path(RUN), index=False)
    command = ("--rerun-triggers", "mtime", "--", "results/smoke/statistics.csv")
    refused = made_copy.snakemake(*command, check=False)
    assert refused.status != 0 and f"{RUN} is damaged (its sha256 changed)" in refused.text
    metrics = read_json(made_copy.path(RUN).with_name("metrics.json"))
    metrics["files"] = {"predictions.parquet": sha256_of(made_copy.path(RUN))}  # as a run of these predictions has it
    write_json(made_copy.path(RUN).with_name("metrics.json"), metrics)
    made_copy.snakemake(*command)
    after = statistics(made_copy)
    accuracies = after["statistic"].isin(["accuracy", "accuracy_run"])
    changed = accuracies & (before["estimate"] != after["estimate"])
    assert set(after[changed]["method"]) == {"zero_shot_sender"}
    assert after[changed]["estimate"].tolist() == [100, 100]
