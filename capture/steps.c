// SPDX-License-Identifier: GPL-2.0-only
/* Plain stores, of which no exit tells: found for a guest whose author has no list of them. It is stepped, instruction by
 * instruction, and after each step memory is held against what it was. What has changed in a page with a writable entry in
 * the real shadow tables the guest may have stored; the rest is KVM's doing, which the trace tells. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "runner.h"

#define MAX_FRAMES (1u << 21)	/* of the captured machine: 8 GiB */
#define WORD 8u

/* A page of a slot. */
struct page {
	uint64_t va;		/* by which the guest may write it */
	unsigned seen;		/* the last look at which it could */
};

int stepping;

static uint8_t *was[MAX_SLOTS];	/* what each slot's memory was at the last look */
static struct page *pages[MAX_SLOTS];
static struct page **page_of;	/* by host frame */
static unsigned look;

/* find: from here on plain stores are found */
void do_find(char *arguments)
{
	(void)arguments;
	stepping = 1;
	page_of = calloc(MAX_FRAMES, sizeof *page_of);
	if (!page_of)
		die("find");
}

static void learn_frames(void)
{
	for (int id = 0; id < MAX_SLOTS; id++)
		for (uint64_t i = 0; slots[id].live && i < slots[id].size / PAGE; i++) {
			uint64_t frame = frame_of(slots[id].hva + i * PAGE);

			if (frame && frame < MAX_FRAMES)
				page_of[frame] = &pages[id][i];
		}
}

/* Before the guest runs, the host having done something perhaps: memory is as it is now. */
void steps_begin(void)
{
	if (!stepping)
		return;
	memset(page_of, 0, MAX_FRAMES * sizeof *page_of);
	for (int id = 0; id < MAX_SLOTS; id++) {
		if (!slots[id].live)
			continue;
		was[id] = realloc(was[id], slots[id].size);
		free(pages[id]);
		pages[id] = calloc(slots[id].size / PAGE, sizeof *pages[id]);
		if (!was[id] || !pages[id])
			die("find");
		memcpy(was[id], slots[id].hva, slots[id].size);
	}
	learn_frames();
	look += 2;
}

static void note_writable(uint64_t va, uint64_t frame)
{
	if (frame >= MAX_FRAMES)
		return;
	if (!page_of[frame])
		learn_frames();
	if (page_of[frame])
		*page_of[frame] = (struct page){ .va = va, .seen = look };
}

/* The bytes of a word that differ, as one store of 1, 2, 4 or 8 bytes. */
static void tell_store(uint64_t va, uint64_t gpa, const uint8_t *now, const uint8_t *old, int privilege)
{
	unsigned size = 1, from = 0, to = WORD - 1;
	uint64_t value = 0;

	while (now[from] == old[from])
		from++;
	while (now[to] == old[to])
		to--;
	while (from / size != to / size)
		size *= 2;
	from -= from % size;
	memcpy(&value, now + from, size);
	mark("H stored va=%llx gpa=%llx len=%u cpl=%d val=%llx", (unsigned long long)(va + from), (unsigned long long)(gpa + from), size,
	     privilege, (unsigned long long)value);
}

static void look_at(const struct slot *slot, uint64_t offset, uint8_t *old, const struct page *page, int privilege)
{
	const uint8_t *now = slot->hva + offset;

	if (!memcmp(now, old, PAGE))
		return;
	for (unsigned at = 0; at < PAGE && page->seen + 1 >= look; at += WORD)
		if (memcmp(now + at, old + at, WORD))
			tell_store(page->va + at, slot->gpa + offset + at, now + at, old + at, privilege);
	memcpy(old, now, PAGE);
}

/* The guest has done a step, or has left by itself. */
void steps_look(int privilege)
{
	look++;
	each_writable(note_writable);
	for (int id = 0; id < MAX_SLOTS; id++)
		for (uint64_t offset = 0; slots[id].live && offset < slots[id].size; offset += PAGE)
			look_at(&slots[id], offset, was[id] + offset, &pages[id][offset / PAGE], privilege);
}
