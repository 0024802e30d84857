"""Every algorithm on five agents: where it ends, to 1e-9, and its first ten rounds.

One row of ``TABLE`` per algorithm: the call, and the five agents' final values by linear algebra.
``python -m tests.transforms.five_agents`` writes docs/five-agents.md and
docs/reference/vectors.json from the rows; tests/transforms/test_five_agents.py checks them, and
that the files are theirs.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cdjax
from cdjax import mixing, topology
from tests.trees import quadratic_gradients, trajectory, with_cross_gradients

DOCS = Path(__file__).parents[2] / "docs"
PAGE, VECTORS = DOCS / "five-agents.md", DOCS / "reference" / "vectors.json"

# f_j(x) = ½ h_j (x − c_j)² on a ring of five whose weights are all 1/3.
GRAPH = topology.ring(5)
PI = GRAPH.mixing_matrix
CURVATURES, CENTERS = np.arange(1, 6) / 3, np.arange(5.0)
ALPHA = 0.1
H, I, J = np.diag(CURVATURES), np.eye(5), np.ones((5, 5)) / 5  # noqa: E741
GRADIENT = quadratic_gradients(CENTERS, CURVATURES)
OPTIMUM = CURVATURES @ CENTERS / CURVATURES.sum()
NUM_ROUNDS = 10
STEP_SIZES = {
    "constant": [ALPHA] * NUM_ROUNDS,
    "decaying": [ALPHA / (1 + k / 4) for k in range(NUM_ROUNDS)],
}


class Row(NamedTuple):
    """An algorithm: its call, its agents' final values, and how long it takes to get there.

    There are no final values where the agents do not come to rest. The call knows ``alpha`` (a
    schedule), ``mix``, ``topology``, and the modules ``cdjax``, ``jax``, ``mixing`` and ``optax``.
    """

    call: str
    expected: np.ndarray | None
    num_steps: int = 2000


def build(call, alpha):
    """The transformation of a call."""
    names = {"cdjax": cdjax, "jax": jax, "mixing": mixing, "optax": optax}
    tx = eval(call, names | {"topology": GRAPH, "mix": mixing.dense(GRAPH), "alpha": alpha})
    return with_cross_gradients(optax.with_extra_args_support(tx), cross_gradients)


def cross_gradients(x):
    """Those of h_l (x_j − c_l) for neighbours j and l."""
    of_one = cdjax.cross_gradients(lambda x, c, h: h * (x - c), GRAPH)
    return of_one(x, jnp.asarray(CENTERS), jnp.asarray(CURVATURES))


def cdsgd(alpha=ALPHA, pi=PI):
    """x = Πx − αH(x − c)."""
    return np.linalg.solve(I - pi + alpha * H, alpha * H @ CENTERS)


def atc(alpha=ALPHA, pi=PI):
    """x = Π(x − αH(x − c))."""
    return np.linalg.solve(I - pi @ (I - alpha * H), alpha * pi @ H @ CENTERS)


def cta(alpha=ALPHA):
    """x = Πx − αH(Πx − c)."""
    return np.linalg.solve(I - (I - alpha * H) @ PI, alpha * H @ CENTERS)


def local(period, pi):
    """x = Π(Rx + (I − R)c) with R = (I − αH)^period."""
    shrunk = np.diag((1 - ALPHA * CURVATURES) ** period)
    return np.linalg.solve(I - pi @ shrunk, pi @ (I - shrunk) @ CENTERS)


def easgd(a, momentum=0.0):
    """v = a(x − x̄) = δv − αH(x + δv − c): at rest the pull is the velocity's opposite."""
    pull = a * (I - J)
    both = (1 - momentum) * pull + ALPHA * H @ (I + momentum * pull)
    return np.linalg.solve(both, ALPHA * H @ CENTERS)


def optimum():
    """All agents at the minimum of the mean loss."""
    return np.full(5, OPTIMUM)


TABLE = {
    "CDSGD": Row("cdjax.cdsgd(alpha, mix)", cdsgd()),
    "CDMSGD, Nesterov": Row("cdjax.cdmsgd(alpha, mix, momentum=0.9)", cdsgd()),
    "CDMSGD, Polyak": Row("cdjax.cdmsgd(alpha, mix, momentum=0.9, nesterov=False)", cdsgd()),
    "momentum outside of consensus": Row(
        "optax.chain(optax.sgd(alpha, momentum=0.5, nesterov=True), cdjax.consensus(mix))",
        cdsgd(alpha=ALPHA / (1 - 0.5)),
    ),
    "CDSGD, messages one step late": Row(
        "cdjax.delayed(lambda mix: cdjax.cdsgd(alpha, mix), mix, delays=[1] * 5)", cdsgd()
    ),
    "i-CDSGD": Row("cdjax.icdsgd(alpha, mix, rounds=2)", cdsgd(pi=PI @ PI)),
    "i-CDSGD, Chebyshev": Row(
        "cdjax.cdsgd(alpha, mixing.chebyshev(mix, 2, sigma=1 - topology.spectral_gap))",
        # T_2(z) = 2z² − 1
        cdsgd(
            pi=(2 * PI @ PI - (1 - GRAPH.spectral_gap) ** 2 * I)
            / (2 - (1 - GRAPH.spectral_gap) ** 2)
        ),
    ),
    "g-CDSGD": Row(
        "cdjax.gcdsgd(alpha, mix, own_weight=0.2)",
        cdsgd(alpha=0.2 * ALPHA, pi=0.2 * I + 0.8 * PI),
    ),
    "CGA": Row("cdjax.cga(alpha, mix, momentum=0.5)", None, NUM_ROUNDS),
    "adapt then combine": Row("cdjax.adapt_then_combine(optax.sgd(alpha), mix)", atc()),
    "combine then adapt": Row("cdjax.combine_then_adapt(optax.sgd(alpha), mix)", cta()),
    "local SGD": Row(
        "cdjax.adapt_then_combine(optax.sgd(alpha), mixing.every(10, mix))", local(10, PI)
    ),
    "DecentLaM": Row("cdjax.decentlam(alpha, mix, momentum=0.9)", atc()),
    "quasi-global momentum": Row("cdjax.quasi_global_momentum(alpha, mix, momentum=0.9)", atc()),
    "quasi-global momentum, Nesterov": Row(
        "cdjax.quasi_global_momentum(alpha, mix, momentum=0.5, buffer_decay=0.9, nesterov=True)",
        atc(alpha=1.5 * ALPHA),
    ),
    "gradient tracking, DIGing": Row("cdjax.gradient_tracking(alpha, mix)", optimum()),
    "gradient tracking, semi-ATC": Row(
        "cdjax.gradient_tracking(alpha, mix, form='semi-atc')", optimum()
    ),
    "gradient tracking, ATC": Row("cdjax.gradient_tracking(alpha, mix, form='atc')", optimum()),
    "momentum tracking": Row("cdjax.momentum_tracking(alpha, mix, momentum=0.5)", optimum()),
    "exact diffusion": Row("cdjax.exact_diffusion(alpha, mix)", optimum()),
    "D²": Row(
        "cdjax.d2(alpha, mix, smallest_eigenvalue=topology.smallest_eigenvalue)", optimum()
    ),
    "EXTRA": Row("cdjax.extra(alpha, mix)", optimum()),
    "SUDA, exact diffusion": Row("cdjax.suda(alpha, mix)", optimum()),
    "SUDA, EXTRA": Row("cdjax.suda(alpha, mix, form='extra')", optimum()),
    "SUDA, ATC tracking": Row("cdjax.suda(alpha, mix, form='atc-tracking')", optimum()),
    "SUDA, DIGing": Row("cdjax.suda(alpha, mix, form='diging')", optimum()),
    "K-GT": Row("cdjax.kgt(optax.sgd(alpha), mix, period=10)", optimum()),
    "LED": Row("cdjax.led(optax.sgd(alpha), mix, period=10, gain=0.5)", optimum()),
    "push-sum": Row("cdjax.push_sum(optax.sgd(alpha), mix)", atc()),
    "Push-DIGing": Row("cdjax.push_diging(alpha, mix)", optimum()),
    "RelaySGD on a path": Row(
        "cdjax.relay(optax.sgd(alpha), cdjax.topology.path(5))", optimum()
    ),
    "CHOCO-SGD": Row(
        "cdjax.choco(optax.sgd(alpha), mix, cdjax.compress.identity(), consensus_step=0.5)",
        atc(pi=(I + PI) / 2),
    ),
    "BEER": Row(
        "cdjax.beer(alpha, mix, cdjax.compress.identity(), consensus_step=0.5)", optimum()
    ),
    "MoTEF": Row(
        "cdjax.beer(alpha, mix, cdjax.compress.identity(), consensus_step=0.5, momentum=0.5)",
        optimum(),
    ),
    "DiLoCo on the ring": Row(
        "cdjax.outer(optax.sgd(alpha), optax.sgd(0.7, momentum=0.5, nesterov=True), mix, "
        "period=10)",
        local(10, PI), 4000,
    ),
    "DiLoCo": Row(
        "cdjax.outer(optax.sgd(alpha), optax.sgd(0.7, momentum=0.5, nesterov=True), "
        "mixing.dense(cdjax.topology.complete(5)), period=10)",
        local(10, J), 4000,
    ),
    "averaged gradients": Row(
        "optax.chain(cdjax.average_updates(), optax.sgd(alpha))", optimum()
    ),
    "FedAvg": Row("cdjax.fedavg(optax.sgd(alpha), local_steps=10)", local(10, J)),
    "EASGD": Row("cdjax.easgd(alpha, beta=0.9, period=1)", easgd(0.9 / 5)),
    "EAMSGD": Row(
        "cdjax.eamsgd(alpha, momentum=0.9, beta=0.9, period=1)", easgd(0.9 / 5, momentum=0.9)
    ),
}  # fmt: skip


def trajectories(name):
    """What is evaluated after every step, from zeros, by step size: shape (steps, 5)."""
    row = TABLE[name]

    def run(step_sizes):
        tx = build(row.call, lambda step: step_sizes[jnp.minimum(step, NUM_ROUNDS - 1)])
        stored, states = trajectory(tx, GRADIENT, jnp.zeros(5), row.num_steps)
        return jax.vmap(cdjax.eval_params)(states, stored)

    # Both in one program, which compiles in half the time.
    runs = jax.jit(jax.vmap(run))(jnp.asarray(list(STEP_SIZES.values())))
    return dict(zip(STEP_SIZES, np.asarray(runs), strict=True))


def page():
    """The text of docs/five-agents.md."""
    lines = [
        _HEAD,
        "| algorithm | call | " + " | ".join(f"agent {j}" for j in range(5)) + " | mean |",
        "| --- | --- |" + " ---: |" * 6,
    ]
    for name, row in TABLE.items():
        if row.expected is None:
            continue
        numbers = " | ".join(f"{x:.9f}" for x in (*row.expected, row.expected.mean()))
        lines.append(f"| {name} | `{row.call}` | {numbers} |")
    return "\n".join(lines) + "\n"


_HEAD = f"""# Each algorithm to 1e-9 on five agents

A ring of five, all weights 1/3, unless a call names another graph. Agent j has
$f_j(x) = \\frac{{1}}{{2}} h_j (x - c_j)^2$ with $h = (1, 2, 3, 4, 5) / 3$ and
$c = (0, 1, 2, 3, 4)$; the mean loss is least at {OPTIMUM:.9f}. Full gradients, step size
$\\alpha = {ALPHA}$, $x_0 = 0$. The numbers are the fixed points by linear
algebra, and every run ends within 1e-9 of them (`tests/transforms/test_five_agents.py`);
`python -m tests.transforms.five_agents` writes this page. Algorithms that draw peers at random have
no fixed point, and Downpour's Adagrad takes ever smaller steps: they are not here. Nor is CGA,
whose directions are zero wherever the gradients of neighbours have opposite signs: with a single
parameter it stays between their minima, and comes to rest nowhere.

[reference/vectors.json](reference/vectors.json) holds the first ten rounds of each, once with the
constant step and once with a decaying one, and of some mistakes that released implementations make.
`python docs/reference/check.py MINE.json` compares those of another implementation, and names the
mistake, or the other algorithm, that it finds in their place.
"""


def vectors(runs, traps):
    """What docs/reference/vectors.json holds, from all trajectories and the rows of traps.py."""
    first = {
        name: {step: found[:NUM_ROUNDS].tolist() for step, found in by_step.items()}
        for name, by_step in runs.items()
    }
    return {
        "problem": {
            "mixing_matrix": PI.tolist(),
            "curvatures": CURVATURES.tolist(),
            "centers": CENTERS.tolist(),
            "start": [0.0] * 5,
            "gradient": "curvatures[j] * (x[j] - centers[j])",
            "step_sizes": STEP_SIZES,
        },
        "algorithms": {name: {"call": TABLE[name].call, **found} for name, found in first.items()},
        "traps": [
            {"algorithm": name, "mistake": mistake}
            | {step: np.array([*loop(sizes)]).tolist() for step, sizes in STEP_SIZES.items()}
            for name, mistake, loop in traps
        ],
    }


def main():
    """Writes both files."""
    from tests.transforms.traps import TRAPS  # which imports the problem from here

    with jax.enable_x64(True):
        PAGE.write_text(page(), "utf-8")
        runs = {name: trajectories(name) for name in TABLE}
        found = json.dumps(vectors(runs, TRAPS), indent=1, ensure_ascii=False)
    # A round on a line.
    VECTORS.write_text(re.sub(r"\[\s+([^][]*?)\s+\]", _on_a_line, found) + "\n", "utf-8")


def _on_a_line(numbers):
    return "[" + " ".join(numbers[1].split()) + "]"


if __name__ == "__main__":
    main()
