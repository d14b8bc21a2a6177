# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.audit.auditor import Auditor

def validate_guest_entries(auditor: Auditor) -> None: ...
