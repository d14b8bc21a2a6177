; SPDX-License-Identifier: GPL-2.0-only
;
; l1-no-npt-pae - a 32-bit hypervisor with PAE that does without nested paging.

%define LEVELS 3
%include "l1.inc"

tour_main:
    PRINT   "l1-no-npt-pae: a 32-bit hypervisor without nested paging", 10
    call    svm_setup
    call    without_nesting
    ret

IMAGE_END
