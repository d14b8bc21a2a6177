from shadowmmu.check.audit.auditor cimport Auditor, is_listed, next_used
