"""A real SLURM of one node on loopback with GPUs that are not there: ``python -m tests.slurm.host start``, ``stop``.

Starts munged, slurmctld and slurmd, records their process numbers and ends exactly those. It needs root, and
``/etc/slurm`` for itself, since the srun inside a job looks nowhere else. There is no accounting database: job states
come from squeue, and what became of a job from slurmctld's own record (`finished_jobs`).
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PLACE = Path(tempfile.gettempdir()) / "telepathy-slurm"
CONFIGURATION = Path("/etc/slurm")
MARK = "# Written by tests/slurm/host.py\n"
DAEMONS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd"}
COMMANDS = {**DAEMONS, "sbatch": "slurm-client"}
GPUS = 2

SLURM_CONF = """\
ClusterName=telepathy
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for its credential to expire.
AuthInfo=socket={place}/munge/socket,cred_expire=10
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={place}/slurmctld
SlurmdSpoolDir={place}/slurmd
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={place}/finished
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
DefMemPerCPU=500
MinJobAge=600
KillWait=10
OverTimeLimit=0
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:h100:{gpus} Feature=h100 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=1-00:00:00 State=UP PriorityTier=5
PartitionName=gpu Nodes={host} MaxTime=1-00:00:00 State=UP PriorityTier=5
PartitionName=preemptible Nodes={host} MaxTime=1-00:00:00 State=UP PriorityTier=1 PreemptMode=REQUEUE
"""


def start() -> None:
    """Start what is not running and wait until the node takes jobs.

    Raises:
        RuntimeError: if a program is missing, this is not root, or another SLURM is configured here.
    """
    missing = sorted({package for command, package in COMMANDS.items() if _program(command) is None})
    if missing:
        raise RuntimeError(f"SLURM's tests need these Debian packages: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise RuntimeError("SLURM's tests start its daemons and must run as root.")
    configured = CONFIGURATION / "slurm.conf"
    if configured.exists() and not configured.read_text().startswith(MARK):
        raise RuntimeError(f"{configured} belongs to another SLURM: run SLURM's tests on another machine.")
    if all(_running(name) for name in DAEMONS):
        return
    stop()
    _write_configuration()
    munge = PLACE / "munge"
    _launch("munged", "--foreground", f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
            f"--log-file={munge}/log", f"--seed-file={munge}/seed")  # fmt: skip
    _wait("munged", lambda: (munge / "socket").exists())
    _launch("slurmctld", "-D", "-c")
    _wait("slurmctld", lambda: "is UP" in _output("scontrol", "ping"))
    _launch("slurmd", "-D", "-N", _host())
    _wait("the node", lambda: _output("sinfo", "-h", "-N", "-o", "%t").startswith(("idle", "mix", "alloc")))


def stop() -> None:
    """Cancel all jobs, end the daemons that `start` recorded and no other process, and take their configuration away.

    With it and without a controller, every Snakemake command would wait nine seconds: the SLURM
    plugin asks ``scontrol`` as soon as it is imported.
    """
    if _running("slurmctld") and _running("slurmd"):
        subprocess.run(["scancel", "--full", f"--user={os.getuid()}"], capture_output=True)
        _wait("the jobs' end", lambda: not _output("squeue", "-h", "-t", "running,completing"))
    for name in reversed(DAEMONS):
        process = _running(name)
        if process is not None:
            process.terminate()
            try:
                process.wait(20)
            except psutil.TimeoutExpired:
                process.kill()
        _record(name).unlink(missing_ok=True)
    for file in (CONFIGURATION / "slurm.conf", CONFIGURATION / "gres.conf"):
        if file.exists() and file.read_text().startswith(MARK):
            file.unlink()


def finished_jobs() -> list[dict[str, str]]:
    """What slurmctld recorded of every job that ended: ``JobId``, ``JobState``, ``TimeLimit``, ``Tres`` and so on."""
    record = PLACE / "finished"
    lines = record.read_text().splitlines() if record.exists() else []
    return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]


def _host() -> str:
    return os.uname().nodename.split(".")[0]


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def _write_configuration() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    for folder in ("", "munge", "slurmctld", "slurmd"):
        (PLACE / folder).mkdir(mode=0o755, parents=True)
    key = PLACE / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    devices = [PLACE / f"gpu{number}" for number in range(GPUS)]
    for device in devices:  # SLURM drops a GPU without a device file; these are what /dev/null is
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    CONFIGURATION.mkdir(exist_ok=True)
    settings = SLURM_CONF.format(host=_host(), place=PLACE, gpus=GPUS)
    (CONFIGURATION / "slurm.conf").write_text(MARK + settings)
    gpus = f"NodeName={_host()} Name=gpu Type=h100 File={PLACE}/gpu[0-{GPUS - 1}]\n"
    (CONFIGURATION / "gres.conf").write_text(MARK + gpus)


def _record(name: str) -> Path:
    return PLACE / f"{name}.process"


def _launch(name: str, *arguments: str) -> None:
    with open(PLACE / f"{name}.output", "ab") as output:
        command = [_program(name) or name, *arguments]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    _record(name).write_text(json.dumps([process.pid, psutil.Process(process.pid).create_time()]))


def _running(name: str) -> psutil.Process | None:
    """The daemon that was recorded, unless it ended; its number may belong to another process by now."""
    try:
        number, started = json.loads(_record(name).read_text())
        process = psutil.Process(number)
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    same = process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE
    return process if same else None


def _output(*command: str) -> str:
    return subprocess.run(command, text=True, capture_output=True, timeout=20).stdout


def _wait(what: str, ready: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"SLURM's test host waited {seconds} s for {what}; what its daemons said is in {PLACE}.")
        time.sleep(0.2)


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]]()
