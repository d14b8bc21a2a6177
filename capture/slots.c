// SPDX-License-Identifier: GPL-2.0-only
/* Guest memory: memslots, and what the host does to the pages behind them. Each command is one line of the script. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/kvm.h>
#include <linux/mman.h>

#include "runner.h"

#define HUGE_PAGE (2ull << 20)
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23	/* Linux 5.14 */
#endif

struct slot slots[MAX_SLOTS];

static struct slot *slot_of(const char *arguments)
{
	int id = atoi(arguments);

	if (id < 0 || id >= MAX_SLOTS)
		die("slot number");
	return &slots[id];
}

uint8_t *guest_memory(uint64_t gpa)
{
	for (int i = 0; i < MAX_SLOTS; i++)
		if (slots[i].live && gpa >= slots[i].gpa && gpa - slots[i].gpa < slots[i].size)
			return slots[i].hva + (gpa - slots[i].gpa);
	return NULL;
}

static uint8_t *memory_of_slot(uint64_t gpa)
{
	uint8_t *at = guest_memory(gpa);

	errno = EFAULT;
	if (!at)
		die("guest memory: no slot there");
	return at;
}

/* Tell KVM what the slot is now; a slot that is not live has size 0 for KVM. */
static void set_slot(struct slot *slot)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot - slots, .flags = slot->flags, .guest_phys_addr = slot->gpa,
		.memory_size = slot->live ? slot->size : 0, .userspace_addr = (uint64_t)slot->hva,
	};

	mark("H slot id=%d flags=%x gpa=%llx size=%llx hva=%llx", region.slot, region.flags, region.guest_phys_addr, region.memory_size,
	     region.userspace_addr);
	if (ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &region))
		die("KVM_SET_USER_MEMORY_REGION");
}

/* Memory in huge pages as far as the host finds them: aligned to 2 MiB, each asked for and touched. */
static uint8_t *transparent(uint64_t size)
{
	uint8_t *wide = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (wide == MAP_FAILED)
		return wide;
	uint8_t *memory = (uint8_t *)(((uint64_t)wide + HUGE_PAGE - 1) & -HUGE_PAGE);

	if (madvise(memory, size, MADV_HUGEPAGE) || madvise(memory, size, MADV_POPULATE_WRITE))
		return MAP_FAILED;
	return memory;
}

/* The memory of a slot that was made before, from a byte on: slot:ID+OFFSET. */
static uint8_t *shared(const char *backing, uint64_t size)
{
	unsigned long long offset;
	int id;

	errno = EINVAL;
	if (sscanf(backing, "slot:%d+%llx", &id, &offset) != 2 || id < 0 || id >= MAX_SLOTS || !slots[id].hva)
		return MAP_FAILED;
	return offset % PAGE || size > slots[id].size || offset > slots[id].size - size ? MAP_FAILED : slots[id].hva + offset;
}

static uint8_t *memory_of(const char *backing, uint64_t size)
{
	int huge = !strcmp(backing, "huge") ? MAP_HUGETLB : !strcmp(backing, "giant") ? MAP_HUGETLB | MAP_HUGE_1GB : 0;

	if (!strcmp(backing, "thp"))
		return transparent(size);
	if (!huge && strcmp(backing, "anon"))
		return shared(backing, size);
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | huge, -1, 0);
}

/* slot ID FLAGS GPA SIZE anon|huge|giant|thp|slot:ID+OFFSET */
void do_slot(char *arguments)
{
	struct slot *slot = slot_of(arguments);
	unsigned long long gpa, size;
	char backing[32];
	int id;

	if (sscanf(arguments, "%d %x %llx %llx %31s", &id, &slot->flags, &gpa, &size, backing) != 5)
		die("slot");
	if (!slot->hva || slot->size != size) {
		slot->hva = memory_of(backing, size);
		if (slot->hva == MAP_FAILED)
			die("memory of a slot");
	}
	slot->gpa = gpa;
	slot->size = size;
	slot->live = 1;
	set_slot(slot);
}

/* flags ID FLAGS: 1 logs dirty pages, 2 makes the slot read-only */
void do_flags(char *arguments)
{
	struct slot *slot = slot_of(arguments);

	sscanf(arguments, "%*d %x", &slot->flags);
	set_slot(slot);
}

/* move ID GPA */
void do_move(char *arguments)
{
	struct slot *slot = slot_of(arguments);
	unsigned long long gpa;

	if (sscanf(arguments, "%*d %llx", &gpa) != 1)
		die("move");
	slot->gpa = gpa;
	set_slot(slot);
}

/* delslot ID */
void do_delslot(char *arguments)
{
	struct slot *slot = slot_of(arguments);

	slot->live = 0;
	set_slot(slot);
}

/* readd ID FLAGS: the deleted slot again, with the memory it had */
void do_readd(char *arguments)
{
	slot_of(arguments)->live = 1;
	do_flags(arguments);
}

/* load GPA FILE */
void do_load(char *arguments)
{
	char file[128], path[512];
	uint8_t page[PAGE];
	unsigned long long gpa;
	ssize_t length;

	if (sscanf(arguments, "%llx %127s", &gpa, file) != 2)
		die("load");
	snprintf(path, sizeof path, "%s/%s", guest_folder, file);
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		die(path);
	for (; (length = read(fd, page, PAGE)) > 0; gpa += length)
		memcpy(memory_of_slot(gpa), page, length);
	close(fd);
}

/* poke GPA BYTES VALUE: the VMM writes guest memory behind the guest's back */
void do_poke(char *arguments)
{
	unsigned long long gpa, value;
	unsigned bytes;

	if (sscanf(arguments, "%llx %u %llx", &gpa, &bytes, &value) != 3 || bytes > sizeof value)
		die("poke");
	mark("H poke gpa=%llx len=%d val=%llx", gpa, bytes, value);
	memcpy(memory_of_slot(gpa), &value, bytes);
}

/* madvise GPA SIZE: the host takes the pages away; the next touch gives zero pages */
void do_madvise(char *arguments)
{
	unsigned long long gpa, size;

	if (sscanf(arguments, "%llx %llx", &gpa, &size) != 2)
		die("madvise");
	mark("H madvise_dontneed gpa=%llx size=%llx", gpa, size);
	madvise(memory_of_slot(gpa), size, MADV_DONTNEED);
}

/* mprotect GPA SIZE 0|1: the host's own mapping read-only, or writable again */
void do_mprotect(char *arguments)
{
	unsigned long long gpa, size;
	int writable;

	if (sscanf(arguments, "%llx %llx %d", &gpa, &size, &writable) != 3)
		die("mprotect");
	mark("H mprotect gpa=%llx size=%llx w=%d", gpa, size, writable);
	mprotect(memory_of_slot(gpa), size, PROT_READ | (writable ? PROT_WRITE : 0));
}

/* dirtylog ID: fetch and clear; the pages go into the trace */
void do_dirtylog(char *arguments)
{
	static uint8_t bitmap[65536];
	struct slot *slot = slot_of(arguments);
	struct kvm_dirty_log log = { .slot = slot - slots, .dirty_bitmap = bitmap };

	memset(bitmap, 0, sizeof bitmap);
	mark("H get_dirty_log slot=%d", log.slot);
	if (ioctl(vm_fd, KVM_GET_DIRTY_LOG, &log))
		mark("H dirtylog errno=%d", errno);
	for (uint64_t page = 0; page < slot->size / PAGE && page < sizeof bitmap * 8; page++)
		if (bitmap[page / 8] >> page % 8 & 1)
			mark("H dirty gfn=%llx", (unsigned long long)(slot->gpa / PAGE + page));
}

/* manual FLAGS: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2; 1: dirtylog does not clear any more, 2: logs begin with all pages dirty */
void do_manual(char *arguments)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { strtoull(arguments, NULL, 16) } };

	mark("H manual_protect flags=%llx", cap.args[0]);
	if (ioctl(vm_fd, KVM_ENABLE_CAP, &cap))
		die("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2");
}

/* clearlog ID FIRST COUNT: KVM_CLEAR_DIRTY_LOG of these pages of the slot */
void do_clearlog(char *arguments)
{
	static uint8_t ones[65536];
	unsigned id, first, count;

	if (sscanf(arguments, "%u %x %x", &id, &first, &count) != 3 || count > sizeof ones * 8)
		die("clearlog");
	struct kvm_clear_dirty_log log = { .slot = id, .first_page = first, .num_pages = count, .dirty_bitmap = ones };

	memset(ones, 0xff, sizeof ones);
	mark("H clear_dirty_log slot=%u first=%x count=%x", id, first, count);
	if (ioctl(vm_fd, KVM_CLEAR_DIRTY_LOG, &log))
		mark("H clearlog errno=%d", errno);
}
