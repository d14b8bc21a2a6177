; SPDX-License-Identifier: GPL-2.0-only
;
; l1-pae - a 32-bit hypervisor with PAE: its nested tables hang below four PDPTEs.

%define LEVELS 3
%include "l1.inc"

tour_main:
    PRINT   "l1-pae: a hypervisor with PAE nested tables", 10
    call    svm_setup
    call    with_nesting
    call    without_nesting
    ret

IMAGE_END
