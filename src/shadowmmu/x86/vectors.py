# SPDX-License-Identifier: GPL-2.0-only
"""Vectors of exceptions, by their names in the manuals."""

DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS, NP, SS, GP, PF = 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14
MF, AC, MC, XF = 16, 17, 18, 19
LAST = 31
"""The last vector that is kept for exceptions."""
HAS_ERROR_CODE = frozenset((DF, TS, NP, SS, GP, PF, AC))
NAMES = {
    DE: "#DE", DB: "#DB", NMI: "NMI", BP: "#BP", OF: "#OF", BR: "#BR", UD: "#UD", NM: "#NM", DF: "#DF", TS: "#TS",
    NP: "#NP", SS: "#SS", GP: "#GP", PF: "#PF", MF: "#MF", AC: "#AC", MC: "#MC", XF: "#XF",
}  # fmt: skip
