"""The paper's theory as functions, as stated and, where a statement fails, corrected.

Functions named ``stated_...`` are exactly what the paper states; their docstrings say where that
fails and what holds instead. Everything assumes Assumption 2: a symmetric mixing matrix of a
connected graph. Bounds are computed with NumPy in float64, V and the estimators with JAX.

Jiang, Balu, Hegde, Sarkar, *Collaborative Deep Learning in Fixed Topology Networks*, NIPS 2017,
arXiv:1706.07880.
"""

from cdjax.theory._consensus import consensus_bound as consensus_bound
from cdjax.theory._consensus import disagreement_rate as disagreement_rate
from cdjax.theory._consensus import mean_error_bound as mean_error_bound
from cdjax.theory._consensus import stated_consensus_bound as stated_consensus_bound
from cdjax.theory._constants import Constants as Constants
from cdjax.theory._constants import descent_limit as descent_limit
from cdjax.theory._constants import guaranteed_descent as guaranteed_descent
from cdjax.theory._constants import lyapunov_smoothness as lyapunov_smoothness
from cdjax.theory._constants import necessary_step_limit as necessary_step_limit
from cdjax.theory._constants import stated_strong_convexity as stated_strong_convexity
from cdjax.theory._constants import sufficient_step_limit as sufficient_step_limit
from cdjax.theory._constants import tight_step_limit as tight_step_limit
from cdjax.theory._convergence import lyapunov_bound as lyapunov_bound
from cdjax.theory._convergence import stated_lyapunov_bound as stated_lyapunov_bound
from cdjax.theory._convergence import stated_neighborhood as stated_neighborhood
from cdjax.theory._convergence import stated_stationarity_bound as stated_stationarity_bound
from cdjax.theory._convergence import stationarity_bound as stationarity_bound
from cdjax.theory._estimators import HessianExtremes as HessianExtremes
from cdjax.theory._estimators import gradient_bound as gradient_bound
from cdjax.theory._estimators import gradient_noise as gradient_noise
from cdjax.theory._estimators import hessian_extremes as hessian_extremes
from cdjax.theory._lyapunov import lyapunov as lyapunov
from cdjax.theory._lyapunov import lyapunov_gradient as lyapunov_gradient
from cdjax.theory._outer import check_momentum_before_mix as check_momentum_before_mix
from cdjax.theory._outer import check_outer_step as check_outer_step
from cdjax.theory._outer import gossip_momentum as gossip_momentum
from cdjax.theory._outer import led_gain_limit as led_gain_limit
from cdjax.theory._outer import momentum_before_mix_limit as momentum_before_mix_limit
from cdjax.theory._outer import outer_step_limit as outer_step_limit
from cdjax.theory._outer import random_pairs_moments as random_pairs_moments
from cdjax.theory._outer import random_pairs_step_limit as random_pairs_step_limit
