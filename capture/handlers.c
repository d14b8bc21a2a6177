// SPDX-License-Identifier: GPL-2.0-only
/* Where a guest that is stepped goes on without TF: the delivery of an event clears it, and SYSCALL may. So while the guest runs,
 * HLT stands for the first byte of each handler that its IDT or these registers name, for which KVM comes back; at each look the
 * bytes are the guest's own. (INT3, made for this, QEMU's CPU does not intercept.) */
#define _GNU_SOURCE
#include <string.h>
#include <sys/ioctl.h>
#include <linux/kvm.h>

#include "runner.h"

#define HLT 0xf4
#define GATES 256
#define ENTRIES 4
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083
#define MSR_SYSENTER_EIP 0x176
#define CR0_PE 1ull
#define EFER_LMA (1ull << 10)

static struct handler { uint8_t *at, was; int planted; } handlers[GATES + ENTRIES];
static int count;

/* Where a code segment of the GDT begins. */
static uint64_t base_of(const struct kvm_sregs *sregs, unsigned selector)
{
	uint64_t descriptor = selector & 4 ? 0 : read_at(sregs, sregs->gdt.base + (selector & ~7u), 8);

	return (descriptor >> 16 & 0xffffff) | (descriptor >> 56) << 24;
}

/* The address that a gate leads to; 0: to none. */
static uint64_t handler_of(const struct kvm_sregs *sregs, unsigned vector)
{
	unsigned size = !(sregs->cr0 & CR0_PE) ? 4 : sregs->efer & EFER_LMA ? 16 : 8;
	uint64_t at = sregs->idt.base + vector * size, gate;

	if ((vector + 1) * size > sregs->idt.limit + 1u)
		return 0;
	gate = read_at(sregs, at, size == 4 ? 4 : 8);
	if (size == 4)
		return (gate >> 16 << 4) + (gate & 0xffff);
	if (!(gate >> 47 & 1) || (gate >> 41 & 3) != 3)		/* absent, or of a task */
		return 0;
	uint64_t offset = (gate & 0xffff) | (gate >> 43 & 1 ? gate >> 48 << 16 : 0);

	return size == 16 ? offset | read_at(sregs, at + 8, 4) << 32 : (uint32_t)(base_of(sregs, gate >> 16 & 0xffff) + offset);
}

static void learn_one(const struct kvm_sregs *sregs, uint64_t va)
{
	uint8_t *at = va ? memory_at(sregs, va) : NULL;

	if (at)
		handlers[count++] = (struct handler){ .at = at };
}

/* What else an instruction goes to without TF. */
static void read_entries(int vcpu_fd, uint64_t *entries)
{
	static const uint32_t numbers[ENTRIES] = { MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSENTER_EIP };
	struct { struct kvm_msrs head; struct kvm_msr_entry entries[ENTRIES]; } msrs = { .head = { .nmsrs = ENTRIES } };

	for (int i = 0; i < ENTRIES; i++)
		msrs.entries[i].index = numbers[i];
	if (ioctl(vcpu_fd, KVM_GET_MSRS, &msrs) != ENTRIES)
		die("KVM_GET_MSRS");
	for (int i = 0; i < ENTRIES; i++)
		entries[i] = numbers[i] == MSR_STAR ? (uint32_t)msrs.entries[i].data : msrs.entries[i].data;
}

static void learn(int vcpu_fd, const struct kvm_sregs *sregs, int changed)
{
	static struct { uint64_t idt, limit, cr0, cr3, cr4, efer, entries[ENTRIES]; } known;
	typeof(known) now = { sregs->idt.base, sregs->idt.limit, sregs->cr0, sregs->cr3, sregs->cr4, sregs->efer, { 0 } };

	read_entries(vcpu_fd, now.entries);
	if (!changed && !memcmp(&now, &known, sizeof now))
		return;
	known = now;
	count = 0;
	for (unsigned vector = 0; vector < GATES; vector++)
		learn_one(sregs, handler_of(sregs, vector));
	for (int i = 0; i < ENTRIES; i++)
		learn_one(sregs, now.entries[i]);
}

/* The guest is about to run: the instruction at which it does is its own. `changed`: memory or the guest's tables, perhaps. */
void handlers_plant(int vcpu_fd, const struct kvm_sregs *sregs, uint64_t rip, int changed)
{
	const uint8_t *now = memory_at(sregs, sregs->cs.base + rip);

	learn(vcpu_fd, sregs, changed);
	for (int i = 0; i < count; i++) {
		handlers[i].planted = handlers[i].at != now;
		if (!handlers[i].planted)
			continue;
		handlers[i].was = *handlers[i].at;
		*handlers[i].at = HLT;
	}
}

/* The guest has left: the bytes are its own again, but for those that it has written. True if the HLT at `va` was none of its own. */
int handlers_lift(const struct kvm_sregs *sregs, uint64_t va)
{
	const uint8_t *stopped = memory_at(sregs, va);
	int ours = 0;

	for (int i = count - 1; i >= 0; i--) {
		ours |= handlers[i].planted && handlers[i].at == stopped;
		if (handlers[i].planted && *handlers[i].at == HLT)
			*handlers[i].at = handlers[i].was;
		handlers[i].planted = 0;
	}
	return ours;
}
