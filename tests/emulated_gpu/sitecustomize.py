"""Gives each job of a workflow the emulated GPU: Python imports this at its start if it lies in PYTHONPATH."""

import os
import sys

if any(".snakemake/scripts" in argument for argument in sys.orig_argv):
    from emulator import load

    load(os.environ["EMULATED_GPU"])
    from gpu import emulated

    _whole_job = emulated()
    _whole_job.__enter__()
