// SPDX-License-Identifier: GPL-2.0-only
/* Plain stores, of which no exit tells: found for a guest whose author has no list of them. It is stepped, instruction by
 * instruction, and after each step memory is held against what it was. What has changed in a page with a writable entry in
 * the real shadow tables the guest may have stored; the rest is KVM's doing, which the trace tells. Where KVM has had nothing to do
 * but to come back from the step, tables are as they were, and only these pages can be other ones. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/kvm.h>

#include "runner.h"

#define MAX_FRAMES (1u << 21)	/* of the captured machine: 8 GiB */
#define WORD 8u

/* A page of a slot. */
struct page {
	const struct slot *slot;
	uint64_t offset;	/* in the slot */
	uint64_t va;		/* by which the guest may write it; of several, one by which it has */
	unsigned seen;		/* the last look at which it could */
};

int stepping;

static uint8_t *was[MAX_SLOTS];	/* what each slot's memory was at the last look */
static struct page *pages[MAX_SLOTS];
static struct page **page_of;	/* by host frame */
static struct page **writable;	/* as of the last look at the tables */
static size_t writable_count, writable_room;
static unsigned look;
static int memory_changed;		/* at the last step, perhaps */

/* find: from here on plain stores are found */
void do_find(char *arguments)
{
	(void)arguments;
	stepping = 1;
	page_of = calloc(MAX_FRAMES, sizeof *page_of);
	if (!page_of)
		die("find");
	tell_other_exits();
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
		for (uint64_t i = 0; i < slots[id].size / PAGE; i++)
			pages[id][i] = (struct page){ .slot = &slots[id], .offset = i * PAGE };
		memcpy(was[id], slots[id].hva, slots[id].size);
	}
	learn_frames();
	writable_count = 0;
	look += 2;
	memory_changed = 1;
}

static void note_writable(uint64_t va, uint64_t frame, int dirty)
{
	if (frame >= MAX_FRAMES)
		return;
	if (!page_of[frame])
		learn_frames();
	struct page *page = page_of[frame];

	if (!page || (page->seen == look && !dirty))
		return;
	page->va = va;
	if (page->seen == look)
		return;
	page->seen = look;
	if (writable_count == writable_room) {
		writable_room += PAGE;
		writable = realloc(writable, writable_room * sizeof *writable);
		if (!writable)
			die("find");
	}
	writable[writable_count++] = page;
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

static uint8_t *old_of(const struct page *page)
{
	return was[page->slot - slots] + page->offset;
}

static int is_other(const struct page *page)
{
	return memcmp(page->slot->hva + page->offset, old_of(page), PAGE);
}

static void tell_stores(const struct page *page, int privilege)
{
	const uint8_t *now = page->slot->hva + page->offset;
	uint8_t *old = old_of(page);

	for (unsigned at = 0; at < PAGE && page->seen + 1 >= look; at += WORD)
		if (memcmp(now + at, old + at, WORD))
			tell_store(page->va + at, page->slot->gpa + page->offset + at, now + at, old + at, privilege);
	memcpy(old, now, PAGE);
}

static void look_at_tables(void)
{
	look++;
	writable_count = 0;
	each_writable(note_writable);
}

/* The guest has done a step, or has left by itself. True if its memory is not what it was, or its tables may not be. */
static int look_for_stores(int privilege)
{
	static int before = 1;		/* what an exit asks for is done as the guest is entered again */
	int other = other_exits(), kvm_acted = other || before, changed = kvm_acted;

	before = other;
	for (size_t i = 0; i < writable_count && !changed; i++)
		changed = is_other(writable[i]);
	if (!changed)
		return 0;
	look_at_tables();		/* they tell by which address a page was written */
	for (size_t i = 0; i < writable_count; i++)
		if (is_other(writable[i]))
			tell_stores(writable[i], privilege);
	for (int id = 0; kvm_acted && id < MAX_SLOTS; id++)
		for (uint64_t i = 0; slots[id].live && i < slots[id].size / PAGE; i++)
			if (is_other(&pages[id][i]))
				tell_stores(&pages[id][i], privilege);
	return 1;
}

static uint64_t register_of(const struct kvm_regs *regs, int number)
{
	const uint64_t values[] = { regs->rax, regs->rcx, regs->rdx, regs->rbx, regs->rsp, regs->rbp, regs->rsi, regs->rdi,
				    regs->r8, regs->r9, regs->r10, regs->r11, regs->r12, regs->r13, regs->r14, regs->r15 };

	return values[number];
}

/* MOV to a control register (0F 22 /r, perhaps with REX): no event tells what it loads. */
static void tell_operand(const struct kvm_sregs *sregs, const struct kvm_regs *regs)
{
	uint64_t code = read_at(sregs, sregs->cs.base + regs->rip, 4);
	unsigned rex = sregs->cs.l && (code & 0xf0) == 0x40 ? code & 0xff : 0;

	code >>= rex ? 8 : 0;
	if ((code & 0xffff) != 0x220f)
		return;
	mark("H operand rip=%llx val=%llx", regs->rip, (unsigned long long)register_of(regs, (code >> 16 & 7) | (rex & 1) << 3));
}

/* Have the guest leave after its next instruction, and where a handler begins. */
void step(int vcpu_fd)
{
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP };
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	if (ioctl(vcpu_fd, KVM_SET_GUEST_DEBUG, &debug) || ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) || ioctl(vcpu_fd, KVM_GET_REGS, &regs))
		die("KVM_SET_GUEST_DEBUG");
	tell_operand(&sregs, &regs);
	handlers_plant(vcpu_fd, &sregs, regs.rip, memory_changed);
}

/* The guest has left, after a step or by itself: its bytes are put back, its stores told. True if it is to go on: it has done no
 * more than that, or has come to a handler, whose first instruction is still to be done. */
int stepped(int vcpu_fd, const struct kvm_run *run)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) || ioctl(vcpu_fd, KVM_GET_REGS, &regs))
		die("KVM_GET_SREGS");
	int at_handler = handlers_lift(&sregs, sregs.cs.base + regs.rip - 1) && run->exit_reason == KVM_EXIT_HLT;

	memory_changed = look_for_stores(sregs.ss.dpl);
	if (at_handler) {
		regs.rip--;
		if (ioctl(vcpu_fd, KVM_SET_REGS, &regs))
			die("KVM_SET_REGS");
	}
	return at_handler || run->exit_reason == KVM_EXIT_DEBUG;
}
