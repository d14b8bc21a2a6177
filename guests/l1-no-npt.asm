; SPDX-License-Identifier: GPL-2.0-only
;
; l1-no-npt - a 64-bit hypervisor that does without nested paging.

%define LEVELS 4
%include "l1.inc"

tour_main:
    PRINT   "l1-no-npt: a hypervisor without nested paging", 10
    call    svm_setup
    call    without_nesting
    ret

IMAGE_END
