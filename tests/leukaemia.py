"""Weeks to relapse in the 6-mercaptopurine trial: Gehan (1965), Freireich et al. (1963)."""

from __future__ import annotations

import numpy as np

SIX_MP = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
SIX_MP_EVENT = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]

TIME = np.array(SIX_MP + PLACEBO)
EVENT = np.array(SIX_MP_EVENT + [1] * 21)
GROUP = np.array(["6-MP"] * 21 + ["placebo"] * 21)
