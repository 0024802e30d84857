"""Mixers: plans that carry out ``mixed[j] = Σ_l Π[j, l] x[l]`` on stacked pytrees."""

from cdjax.mixing._auto import auto as auto
from cdjax.mixing._dense import dense as dense
