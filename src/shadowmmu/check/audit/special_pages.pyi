# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.audit.auditor import Auditor

def validate_special_pages(auditor: Auditor) -> None: ...
