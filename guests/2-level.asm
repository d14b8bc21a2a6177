; SPDX-License-Identifier: GPL-2.0-only
;
; 2-level - 32-bit paging: 4-byte entries, 4 MB pages, no NX.

%define LEVELS 2
%include "tour.inc"

tour_main:
    PRINT   "2-level: a tour of 32-bit paging", 10
    call    tour_common
    call    group_mode_hop
    call    group_pse
    ret

IMAGE_END
