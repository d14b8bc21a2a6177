; SPDX-License-Identifier: GPL-2.0-only
;
; l1-2-level - a 32-bit hypervisor without PAE: its nested tables have 4-byte entries.

%define LEVELS 2
%include "l1.inc"

tour_main:
    PRINT   "l1-2-level: a hypervisor with 2-level nested tables", 10
    call    svm_setup
    call    with_nesting
    call    without_nesting
    ret

IMAGE_END
