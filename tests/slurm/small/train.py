"""Train as the real rules do, with slow steps (rule train)."""

from pathlib import Path

from telepathy.files import write_json
from telepathy.training.loop import TrainingConfig, fit
from telepathy.workflow import job_log
from tests.slurm.small.learner import Slow, digest

with job_log(snakemake):
    learner = Slow()
    steps = TrainingConfig(steps=80, batch_size=4, checkpoint_every=1000, evaluations=1)
    history = fit(learner, steps, seed=1, checkpoints=Path(snakemake.params.checkpoints))
    write_json(snakemake.output[0], {"digest": digest(learner), "history": history, "steps": learner.steps})
