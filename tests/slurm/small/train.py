"""Train as the real rules do, with slow steps until there is a checkpoint to go on from (rule train)."""

from pathlib import Path

from telepathy.files import write_json
from telepathy.training.loop import TrainingConfig, fit
from telepathy.workflow import job_log
from tests.slurm.small.learner import SECONDS, Slow, digest

with job_log(snakemake):
    checkpoints = Path(snakemake.params.checkpoints)
    # Whoever goes on is quick: SLURM may warn up to a minute early, also the next attempt.
    learner = Slow(seconds=0 if checkpoints.is_dir() else SECONDS)
    steps = TrainingConfig(steps=80, batch_size=4, checkpoint_every=1000, evaluations=1)
    history = fit(learner, steps, seed=1, checkpoints=checkpoints)
    write_json(snakemake.output[0], {"digest": digest(learner), "history": history, "steps": learner.steps})
