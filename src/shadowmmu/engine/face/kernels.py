# SPDX-License-Identifier: GPL-2.0-only
"""The kernels whose shadow MMU a VM can have: each a set of rules, named by what they say. docs/kernels.md tells them."""

LINUX_6_1: frozenset[str] = frozenset()
"""What the engine does where no rule says otherwise."""
LINUX_6_12 = LINUX_6_1 | {
    "sync_keeps", "invlpg_syncs", "hides_root", "hides_pdpte", "masks_root_gfn", "wp_needs_paging", "sregs_flush",
    "wide_error_code", "ignores_self_change", "retries_zapped", "nx_marks_nonpaging",
    "nx_keeps_marked", "unprotects_late",
}  # fmt: skip
LINUX_7_3 = LINUX_6_12 | {
    "sync_keeps_accessed", "smep_in_role", "npt_role_plain", "dirties_writable", "zaps_written_child", "short_mmio_gen",
}  # fmt: skip
KERNELS = {"6.1": LINUX_6_1, "6.12": LINUX_6_12, "7.3": LINUX_7_3}
"""By series, oldest first."""
DEFAULT_KERNEL = "6.1"


def kernel_of_release(release: str) -> str:
    """The series that a release is of ("6.12.117+deb12-amd64" is of 6.12); ValueError if it is none of these."""
    for name in KERNELS:
        if release == name or release.startswith((name + ".", name + "-")):
            return name
    raise ValueError(f"Linux {release} is not known here; known are {', '.join(KERNELS)}")
