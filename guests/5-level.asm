; SPDX-License-Identifier: GPL-2.0-only
;
; 5-level - long mode with CR4.LA57: 57-bit addresses.

%define LEVELS 5
%include "tour.inc"

tour_main:
    PRINT   "5-level: a tour of 5-level paging", 10
    call    tour_common
    call    group_nxe
    call    group_halves
    call    group_gigantic
    call    group_syscall
    call    group_long_hop
    ret

IMAGE_END
