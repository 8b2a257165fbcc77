"""The GPU rows: ``python -m telepathy.benchmarks --study rehearsal --out docs/results/gpu`` measures and writes them.

Models of the study's shapes are made with random weights where they run, so nothing is downloaded.
"""

import argparse
import sys
from pathlib import Path

from telepathy.benchmarks.full_size import measure_full_size
from telepathy.devices import choose_compute
from telepathy.errors import TelepathyError
from telepathy.files import read_yaml


def main(arguments: list[str] | None = None) -> int:
    """Measure one study's shapes; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m telepathy.benchmarks", description=__doc__)
    parser.add_argument("--study", default="rehearsal", help="study of config.yaml whose models have random weights")
    parser.add_argument("--config", type=Path, default=Path("config.yaml"))
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results/gpu"), help="folder of latency.csv and speed.csv"
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--modes", nargs="+", choices=["eager", "compiled"], help="eager relays take longest")
    parser.add_argument("--batch-sizes", nargs="+", type=int, help="examples a call")
    parser.add_argument("--relays", nargs="+", type=int, help="tokens of a relay's message")
    parser.epilog = "What is absent is as in the study's benchmark."
    options = parser.parse_args(arguments)
    given = {"modes": options.modes, "batch_sizes": options.batch_sizes, "relays": options.relays}
    changes = {name: values for name, values in given.items() if values is not None}
    try:
        config = read_yaml(options.config)
        measure_full_size(config, options.study, choose_compute(options.device), options.out, changes)
    except TelepathyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print((options.out / "speed.csv").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
