; SPDX-License-Identifier: GPL-2.0-only
;
; pae - PAE: 8-byte entries below four PDPTEs, 2 MB pages, NX.

%define LEVELS 3
%include "tour.inc"

tour_main:
    PRINT   "pae: a tour of PAE paging", 10
    call    tour_common
    call    group_nxe
    call    group_mode_hop
    ret

IMAGE_END
