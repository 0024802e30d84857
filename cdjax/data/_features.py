"""Images that differ between agents in how they look, not in what they show.

Ghosh, Chung, Yin, Ramchandran, *An Efficient Framework for Clustered Federated Learning*, NeurIPS
2020, arXiv:2006.04088 (rotated images).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8

from cdjax._checks import check_choice, check_num_agents

SKEWS = ("rotation", "tint")
# The least and the greatest brightness of a channel.
_DARKEST, _BRIGHTEST = 0.4, 1.0


def skew_features(
    images: UInt8[np.ndarray, "samples height width channels"],
    agents: Int[np.ndarray, " samples"],
    *,
    num_agents: int,
    kind: str,
) -> UInt8[np.ndarray, "samples height width channels"]:
    r"""Changes every image as the agent that holds it sees all of its images.

    - ``rotation``: agent j's images are turned by :math:`\lfloor 4 j / N \rfloor` quarters.
    - ``tint``: channel c of agent j's images is multiplied by a brightness from 0.4 to 1, which
      goes around with j, a third of the way later for each channel; grey images get darker.

    Labels are to stay as they are: the agents' tasks have the same classes and other inputs.

    Args:
        images: uint8, shape (n, H, W, C); square for ``rotation``.
        agents: whose each image is, shape (n,).
        num_agents: N.
        kind: ``rotation`` or ``tint``.

    Returns:
        The changed images, a copy.

    Raises:
        ValueError: if the kind is unknown, or images to be turned are not square.

    Example::

        photos, agents = np.zeros((8, 32, 32, 3), np.uint8), np.arange(8) % 4
        turned = cdjax.data.skew_features(photos, agents, num_agents=4, kind="rotation")

    Reference: Ghosh et al. (2020), Section 6, for rotations.
    """
    check_num_agents(num_agents)
    check_choice("kind", kind, SKEWS)
    if kind == "rotation":
        height, width = images.shape[1:3]
        if height != width:
            raise ValueError(f"images are {height} × {width}; only square ones can be turned")
        changed = images.copy()
        for turns in range(1, 4):
            own = agents * 4 // num_agents == turns
            changed[own] = np.rot90(images[own], turns, axes=(1, 2))
        return changed
    channels = np.arange(images.shape[3])
    angles = 2 * np.pi * (np.arange(num_agents)[:, None] / num_agents + channels / 3)
    brightness = _DARKEST + (_BRIGHTEST - _DARKEST) * (1 + np.cos(angles)) / 2
    changed = np.empty_like(images)
    for agent in range(num_agents):  # all at once they would be a copy in float64
        own = agents == agent
        changed[own] = np.rint(images[own] * brightness[agent]).astype(np.uint8)
    return changed
