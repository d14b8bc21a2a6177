# SPDX-License-Identifier: GPL-2.0-only
# Memory that nobody may touch now, for AddressSanitizer; without it, nothing.

cdef extern from *:
    """
    #ifdef __SANITIZE_ADDRESS__
    #include <sanitizer/asan_interface.h>
    #define KASAN_REDZONE 4096
    #define kasan_poison(at, size) __asan_poison_memory_region(at, size)
    #define kasan_unpoison(at, size) __asan_unpoison_memory_region(at, size)
    #else
    #define KASAN_REDZONE 0
    #define kasan_poison(at, size) ((void)(at), (void)(size))
    #define kasan_unpoison(at, size) ((void)(at), (void)(size))
    #endif
    """
    const unsigned long long KASAN_REDZONE  # bytes before each pool and each array of a memslot
    void kasan_poison(void *at, unsigned long long size) noexcept nogil
    void kasan_unpoison(void *at, unsigned long long size) noexcept nogil
