from shadowmmu.check.audit.auditor cimport Auditor
