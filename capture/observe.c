// SPDX-License-Identifier: GPL-2.0-only
/* What the kernel holds at this moment: its shadow tables (through /proc/kcore), its counters, the guest's frames. */
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner.h"

/* Where the kernel maps all physical memory, with 4 and with 5 levels of its own tables (Documentation/x86/x86_64/mm.rst);
 * the kernel is booted with nokaslr, so these are the addresses. */
#define DIRECT_MAP_4 0xffff888000000000ull
#define DIRECT_MAP_4_END 0xffffc88000000000ull
#define DIRECT_MAP_5 0xff11000000000000ull
#define DIRECT_MAP_5_END 0xff91000000000000ull

#define PRESENT 1
#define ABSENT (1ull << 63)		/* an entry with nothing in it, since Linux 6.9 */
#define WRITABLE 2
#define DIRTY 0x40
#define LARGE 0x80
#define FRAME 0x000ffffffffff000ull
#define PAGEMAP_PFN ((1ull << 55) - 1)	/* Documentation/admin-guide/mm/pagemap.rst */

static int kcore_fd;
static Elf64_Phdr segments[64];
static int segment_count;
static FILE *tables, *counters, *frames;

void observe_open(void)
{
	Elf64_Ehdr header;

	kcore_fd = open("/proc/kcore", O_RDONLY);
	if (kcore_fd < 0 || pread(kcore_fd, &header, sizeof header, 0) != sizeof header)
		die("/proc/kcore");
	segment_count = header.e_phnum > 64 ? 64 : header.e_phnum;
	if (pread(kcore_fd, segments, segment_count * sizeof segments[0], header.e_phoff) < 0)
		die("/proc/kcore");
	tables = output("spt.txt");
	counters = output("stats.txt");
	frames = output("pfn.txt");
}

/* The physical address at which a segment of kcore begins; ~0 if it is not of the direct map. */
static uint64_t physical_start(const Elf64_Phdr *segment)
{
	uint64_t at = segment->p_vaddr;

	if (segment->p_type != PT_LOAD)
		return ~0ull;
	if (at >= DIRECT_MAP_4 && at < DIRECT_MAP_4_END)
		return at - DIRECT_MAP_4;
	if (at >= DIRECT_MAP_5 && at < DIRECT_MAP_5_END)
		return at - DIRECT_MAP_5;
	return ~0ull;
}

static int read_physical(uint64_t address, void *to, size_t size)
{
	for (int i = 0; i < segment_count; i++) {
		uint64_t start = physical_start(&segments[i]);

		if (start == ~0ull || address < start || address + size > start + segments[i].p_memsz)
			continue;
		return pread(kcore_fd, to, size, segments[i].p_offset + address - start) == (ssize_t)size;
	}
	return 0;
}

/* What a table holds where there is nothing: the kernel has one value in a whole table. */
static uint64_t nothing_in(const uint64_t *entries, int count)
{
	for (int i = 0; i < count; i++)
		if (!entries[i] || entries[i] == ABSENT)
			return entries[i];
	return 0;
}

/* Print what a table holds where there is nothing, and its other entries, each followed by the table below it. */
static void dump_table(uint64_t table, int level, int top)
{
	uint64_t entries[512];
	int count = 512;

	if (level == 3 && top == 3)
		count = 4;			/* the root of a PAE shadow: 32 bytes, not a page */
	else
		table &= FRAME;
	table &= ~31ull;
	if (!read_physical(table, entries, count * sizeof entries[0])) {
		fprintf(tables, "  ! cannot read %llx\n", (unsigned long long)table);
		return;
	}
	uint64_t nothing = nothing_in(entries, count);

	fprintf(tables, "%*s L%d %llx nothing=%llx\n", (top - level) * 2, "", level, (unsigned long long)table,
		(unsigned long long)nothing);
	for (int i = 0; i < count; i++) {
		uint64_t entry = entries[i];

		if (entry == nothing)
			continue;
		fprintf(tables, "%*s L%d %llx[%03x] = %llx\n", (top - level) * 2, "", level, (unsigned long long)table, i,
			(unsigned long long)entry);
		if (entry & PRESENT && level > 1 && !(entry & LARGE))
			dump_table(entry & FRAME, level - 1, top);
	}
}

void dump_tables(const char *tag)
{
	uint64_t root;
	int level, loaded = latest_root(&root, &level);

	fprintf(tables, "DUMP seq=%d tag=%s root=%llx level=%d\n", seq, tag, (unsigned long long)root, level);
	if (loaded)
		dump_table(root, level, level);
}

static uint64_t entries_of(uint64_t table, int level, int top, uint64_t *entries)
{
	int count = level == 3 && top == 3 ? 4 : 512;

	return read_physical(table & (count == 4 ? ~31ull : FRAME), entries, count * sizeof entries[0]) ? count : 0;
}

/* Below one table, whose first entry is that of `va`. */
static void writable_below(uint64_t table, int level, int top, uint64_t va, found_writable *found)
{
	uint64_t entries[512], reach = 1ull << (12 + 9 * (level - 1));
	uint64_t count = entries_of(table, level, top, entries);

	for (uint64_t i = 0; i < count; i++, va += reach) {
		if (!(entries[i] & PRESENT) || (entries[i] == ABSENT))
			continue;
		if (level > 1 && !(entries[i] & LARGE))
			writable_below(entries[i] & FRAME, level - 1, top, va, found);
		else if (entries[i] & WRITABLE)
			for (uint64_t offset = 0; offset < reach; offset += PAGE)
				found(va + offset, ((entries[i] & FRAME) + offset) / PAGE, !!(entries[i] & DIRTY));
	}
}

void each_writable(found_writable *found)
{
	uint64_t root;
	int level;

	if (latest_root(&root, &level))
		writable_below(root, level, level, 0, found);
}

uint64_t frame_of(const void *address)
{
	static int pagemap = -1;
	uint64_t entry = 0;

	if (pagemap < 0)
		pagemap = open("/proc/self/pagemap", O_RDONLY);
	if (pagemap < 0 || pread(pagemap, &entry, sizeof entry, (uint64_t)address / PAGE * sizeof entry) != sizeof entry)
		die("/proc/self/pagemap");
	return entry & PAGEMAP_PFN;
}

/* One counter of debugfs, if it is a plain number and not zero. */
static void write_counter(const char *folder, const char *prefix, const char *name)
{
	char path[900], text[64];
	struct stat status;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	if (strstr(name, "rmaps") || stat(path, &status) || !S_ISREG(status.st_mode))
		return;
	int fd = open(path, O_RDONLY);
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

	if (fd >= 0)
		close(fd);
	if (length <= 0)
		return;
	text[length] = 0;
	text[strcspn(text, "\n")] = 0;
	if (strlen(text) < 30 && strcmp(text, "0"))
		fprintf(counters, " %s%s=%s\n", prefix, name, text);
}

static void write_folder(const char *folder, const char *prefix)
{
	struct dirent **entries;
	int count = scandir(folder, &entries, NULL, alphasort);

	if (count < 0)
		die(folder);
	for (int i = 0; i < count; i++) {
		write_counter(folder, prefix, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
}

/* /sys/kernel/debug/kvm/PID-FD holds the VM's counters, its vcpu0 a vCPU's; of several the VM's are the sums. */
void write_counters(const char *tag)
{
	char folder[300];

	fprintf(counters, "STATS seq=%d tag=%s\n", seq, tag);
	snprintf(folder, sizeof folder, "/sys/kernel/debug/kvm/%d-%d", getpid(), vm_fd);
	write_folder(folder, "");
	if (vcpu_count > 1)
		return;
	strcat(folder, "/vcpu0");
	write_folder(folder, "vcpu0/");
}

/* For each guest page its host frame: "gfn pfn slot", frame 0 for a page that the host has not given yet. */
void write_frames(void)
{
	for (int id = 0; id < MAX_SLOTS; id++) {
		if (!slots[id].live)
			continue;
		for (uint64_t offset = 0; offset < slots[id].size; offset += PAGE)
			fprintf(frames, "%llx %llx %d\n", (unsigned long long)((slots[id].gpa + offset) / PAGE),
				(unsigned long long)frame_of(slots[id].hva + offset), id);
	}
}
