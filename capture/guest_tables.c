// SPDX-License-Identifier: GPL-2.0-only
/* Where a guest's own tables lead, as its CPU reads them: for a runner that looks at the guest's code and descriptors. */
#define _GNU_SOURCE
#include <stddef.h>
#include <string.h>
#include <linux/kvm.h>

#include "runner.h"

#define FRAME 0x000ffffffffff000ull
#define CR0_PG (1ull << 31)
#define CR4_PSE (1ull << 4)
#define CR4_PAE (1ull << 5)
#define CR4_LA57 (1ull << 12)
#define EFER_LMA (1ull << 10)
#define LARGE 0x80

static uint64_t read_guest(uint64_t gpa, unsigned size)
{
	const uint8_t *at = guest_memory(gpa);
	uint64_t value = 0;

	if (at)
		memcpy(&value, at, size);
	return value;
}

static int levels_of(const struct kvm_sregs *sregs)
{
	if (!(sregs->cr0 & CR0_PG))
		return 0;
	if (sregs->efer & EFER_LMA)
		return sregs->cr4 & CR4_LA57 ? 5 : 4;
	return sregs->cr4 & CR4_PAE ? 3 : 2;
}

/* A large page may be of this level (APM vol. 2, 5.2 and 5.3). */
static int may_be_large(const struct kvm_sregs *sregs, int level, int levels)
{
	if (levels == 2)
		return level == 2 && sregs->cr4 & CR4_PSE;
	return level == 2 || (level == 3 && levels > 3);
}

/* The memory that a guest address leads to by the guest's own tables. */
uint8_t *memory_at(const struct kvm_sregs *sregs, uint64_t va)
{
	int levels = levels_of(sregs), size = levels == 2 ? 4 : 8, bits = levels == 2 ? 10 : 9;
	uint64_t table = levels == 3 ? sregs->cr3 & 0xffffffe0 : sregs->cr3 & FRAME;

	if (!levels)
		return guest_memory(va);
	for (int level = levels; level; level--) {
		uint64_t reach = 1ull << (12 + bits * (level - 1));
		uint64_t entry = read_guest(table + (va / reach & ((1u << bits) - 1)) * size, size);

		if (!(entry & 1))
			return NULL;
		if (level == 1 || (entry & LARGE && may_be_large(sregs, level, levels))) {
			uint64_t high = size == 4 && level == 2 ? (entry >> 13 & 0xff) << 32 : 0;	/* PSE-36 */

			return guest_memory(high | (entry & FRAME & -reach) | (va & (reach - 1)));
		}
		table = entry & FRAME;
	}
	return NULL;
}

/* Memory of a guest address; what leads nowhere reads as zeroes. */
uint64_t read_at(const struct kvm_sregs *sregs, uint64_t va, unsigned size)
{
	const uint8_t *at = memory_at(sregs, va);
	uint64_t value = 0, left = PAGE - va % PAGE;

	if (at)
		memcpy(&value, at, size < left ? size : left);
	return size <= left ? value : value | read_at(sregs, va + left, size - left) << 8 * left;
}
