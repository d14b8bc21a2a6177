from shadowmmu.check.audit.auditor cimport Auditor, next_used
