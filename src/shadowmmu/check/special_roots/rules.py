# SPDX-License-Identifier: GPL-2.0-only
"""The rules by which a VM with roots of special pages may differ from the kernel, event by event.

A rule looks at one place of the two streams (`align.Place`), where they differ, and says how many events of each it
explains, or None. Each belongs to a letter of `known_differences.py`; what no rule explains is a divergence.
"""

from shadowmmu.check.special_roots.causes import CAUSES
from shadowmmu.check.special_roots.consequences import CONSEQUENCES

RULES = [*CAUSES, *CONSEQUENCES]
"""(letter, rule), in the order in which they are asked."""
