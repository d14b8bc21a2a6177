; SPDX-License-Identifier: GPL-2.0-only
;
; 4-level - long mode with 48-bit addresses.

%define LEVELS 4
%include "tour.inc"

tour_main:
    PRINT   "4-level: a tour of 4-level paging", 10
    call    tour_common
    call    group_nxe
    call    group_halves
    call    group_gigantic
    call    group_syscall
    call    group_long_hop
    ret

IMAGE_END
