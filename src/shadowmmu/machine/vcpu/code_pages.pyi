# SPDX-License-Identifier: GPL-2.0-only
from typing import final

@final
class CodePages:
    def may_hold(self, hpa: int, size: int) -> bool: ...
