"""Networks that fail and agents that lie: faults, attacks, and the mixers that tolerate them."""

from cdjax.robust._attacks import Attack as Attack
from cdjax.robust._attacks import alie as alie
from cdjax.robust._attacks import attacked as attacked
from cdjax.robust._attacks import gaussian_noise as gaussian_noise
from cdjax.robust._attacks import sign_flip as sign_flip
from cdjax.robust._clipping import clipped_gossip as clipped_gossip
from cdjax.robust._faults import Absence as Absence
from cdjax.robust._faults import absent_agents as absent_agents
from cdjax.robust._faults import failing_links as failing_links
from cdjax.robust._faults import faulty as faulty
from cdjax.robust._faults import lost_messages as lost_messages
from cdjax.robust._faults import random_absence as random_absence
from cdjax.robust._faults import scheduled_absence as scheduled_absence
from cdjax.robust._links import Fault as Fault
from cdjax.robust._means import median as median
from cdjax.robust._means import trimmed_mean as trimmed_mean
