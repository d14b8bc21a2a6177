; SPDX-License-Identifier: GPL-2.0-only
;
; l1-4-level - a 64-bit hypervisor: its nested tables have 4 levels.

%define LEVELS 4
%include "l1.inc"

tour_main:
    PRINT   "l1-4-level: a hypervisor with 4-level nested tables", 10
    call    svm_setup
    call    with_nesting
    ret

IMAGE_END
