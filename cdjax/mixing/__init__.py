"""Mixers: plans that carry out ``mixed[j] = Σ_l Π[j, l] x[l]`` on stacked pytrees."""

from cdjax.mixing._auto import auto as auto
from cdjax.mixing._auto import choose as choose
from cdjax.mixing._dense import dense as dense
from cdjax.mixing._every import cycle as cycle
from cdjax.mixing._every import every as every
from cdjax.mixing._exchange import Codec as Codec
from cdjax.mixing._exchange import Exchange as Exchange
from cdjax.mixing._exchange import exchange as exchange
from cdjax.mixing._for_each import for_each as for_each
from cdjax.mixing._neighbors import neighbors as neighbors
from cdjax.mixing._peers import Peers as Peers
from cdjax.mixing._peers import pull as pull
from cdjax.mixing._peers import push as push
from cdjax.mixing._peers import random_pairs as random_pairs
from cdjax.mixing._peers import random_peers as random_peers
from cdjax.mixing._personal import personal as personal
from cdjax.mixing._polynomials import chebyshev as chebyshev
from cdjax.mixing._polynomials import lazy as lazy
from cdjax.mixing._polynomials import repeated as repeated
from cdjax.mixing._ppermute import ppermute as ppermute
from cdjax.mixing._shifts import shifts as shifts
