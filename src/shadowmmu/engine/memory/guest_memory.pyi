# SPDX-License-Identifier: GPL-2.0-only
from enum import IntFlag

class InterleavePoint(IntFlag):
    AFTER_WALK = 1
    BEFORE_GET_PAGE = 2

class InterleaveEvent(IntFlag):
    STORE = 0
    ZAP_ALL = 1
    MOVE_PAGE = 2
