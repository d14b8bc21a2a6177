// SPDX-License-Identifier: GPL-2.0-only
/* Dependent loads, as many as a line of memory has cache lines: what memory costs where nothing can be fetched ahead. */

#include <stdint.h>
#include <stdlib.h>

/* One ring through the first word of each of `count` lines of 64 bytes, in random order (Sattolo). */
void chase_make(uint64_t *words, uint64_t count)
{
	uint64_t seed = 88172645463325252ULL;

	for (uint64_t i = 0; i < count; i++)
		words[i * 8] = i * 8;
	for (uint64_t i = count - 1; i > 0; i--) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		uint64_t other = seed % i, word = words[i * 8];
		words[i * 8] = words[other * 8];
		words[other * 8] = word;
	}
}

uint64_t chase_run(const uint64_t *words, uint64_t steps)
{
	uint64_t at = 0;

	while (steps--)
		at = words[at];
	return at;
}
