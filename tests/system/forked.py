"""A helper of the tests: runs of the programs by the dozen, each in a process of its own.

JAX and the programs take seconds to import. So one process imports them, and forks a child for each
run before JAX has started a backend or a thread.
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
STEPS_PER_EPOCH = 10
OPTIONS = "--model softmax --agents 4 --topology ring --train-samples 320 --batch-size 8".split()


def xla_flags(*, devices):
    """Flags for programs that run for microseconds: they compile in half the time.

    Without LLVM's optimizations, and by XLA's older code generator, the choice of which ends the
    process where XLA does not know the flag.
    """
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    is_known = importlib.metadata.version("jaxlib").startswith("0.10.")
    return f"{flags} --xla_cpu_use_fusion_emitters=false" if is_known else flags


def start_server(tmp_path_factory, *launcher):
    """A fixture: the process that forks, as a :class:`Server`."""
    process = subprocess.Popen(
        [*launcher, sys.executable, "-m", "tests.system.forked"],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    yield Server(process, tmp_path_factory.mktemp("server"))
    process.stdin.close()
    process.wait(60)
    process.stdout.close()


class Server:
    """Starts runs and tells how they ended."""

    def __init__(self, process, folder):
        self.process, self.folder = process, folder

    def start(self, *options, usual=OPTIONS, devices=1, file_bytes=None, sick=None):
        """The process id of a run; ``sick`` is an agent and a step, see :func:`_run_sick`."""
        env = {"XLA_FLAGS": xla_flags(devices=devices), "COLUMNS": "200"}
        names = {name: str(self.folder / name) for name in ("out", "err")}
        words = [*usual, *map(str, options)]
        request = {"options": words, "env": env, "file_bytes": file_bytes, "sick": sick, **names}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def finish(self):
        code = int(self.process.stdout.readline())
        return code, (self.folder / "out").read_text(), (self.folder / "err").read_text()

    def run(self, *options, **settings):
        self.start(*options, **settings)
        code, output, errors = self.finish()
        assert code == 0, errors
        return output


def only_folder(out):
    (folder,) = out.iterdir()
    return folder


def records_of(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def arrays_of(folder, step):
    """Every leaf of a checkpoint, read by nothing of ours."""
    import orbax.checkpoint as ocp

    with contextlib.closing(ocp.Checkpointer(ocp.PyTreeCheckpointHandler())) as reader:
        path = folder / "checkpoints" / str(step) / "state"
        shapes = ocp.PyTreeCheckpointHandler().metadata(path).tree
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        import jax

        args = jax.tree.map(lambda _: as_numpy, shapes)
        tree = reader.restore(path, ocp.args.PyTreeRestore(restore_args=args))
    return {
        jax.tree_util.keystr(path): (x.dtype, x.tobytes())
        for path, x in jax.tree.leaves_with_path(tree)
    }


def _serve():
    """Forks a run for every line of stdin; answers with its process id, then with its exit code."""
    import sklearn.datasets  # noqa: F401

    from experiments.launch.cli import main
    from experiments.run import runner  # noqa: F401
    from experiments.run.config import Run

    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if not process:
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.environ |= request["env"]
            if request["file_bytes"]:
                resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"],) * 2)
            sys.argv = ["digits", *request["options"]]
            code = 0
            try:
                main(Run(), functools.partial(_run_sick, request["sick"]), dataset="digits")
            except SystemExit as end:
                code = end.code or 0
            sys.stdout.flush()
            os._exit(code)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _run_sick(sick, options):
    """A run in which the parameters of an agent are not numbers in a step, counted from 1."""
    from rich.console import Console

    from experiments.run import compiling, job, progress, runner

    if sick is None:
        return runner.run(options)
    import jax
    import jax.numpy as jnp
    import optax

    agent, step = sick
    compiling.keep_compilations()
    healthy = job.prepare(options)

    def loop(state, samples, indices, num_steps):
        """The healthy loop up to the step, and from there on."""
        before = jnp.clip(step - 1 - state.step, 0, num_steps)
        state, first = healthy.programs.loop(state, samples, indices, before)
        is_now = (state.step == step - 1) & (before < num_steps)
        is_sick = is_now & (jnp.arange(healthy.network.num_agents) == agent)
        params = jax.vmap(optax.tree.scale)(jnp.where(is_sick, jnp.nan, 1.0), state.params)
        state, rest = healthy.programs.loop(
            state._replace(params=params),
            samples,
            jnp.roll(indices, -before, 0),
            num_steps - before,
        )
        return state, jax.tree.map(lambda x, y: x + jnp.roll(y, before, 0), first, rest)

    sick_job = healthy._replace(programs=healthy.programs._replace(loop=loop))
    start = progress.beginning(healthy)
    return runner.run_job(Console(), sick_job, progress=start)


if __name__ == "__main__":
    _serve()
