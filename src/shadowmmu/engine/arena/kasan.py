# SPDX-License-Identifier: GPL-2.0-only
"""What AddressSanitizer is told of the arena, in the words of the kernel's KASAN: memory that nobody may touch now.

All is in ``kasan.pxd``. `make sanitize` compiles with it; in every other build there are no redzones, and `kasan_poison`
and `kasan_unpoison` are nothing.
"""
