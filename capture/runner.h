/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of the runner share. It runs as root inside the captured kernel, one process a guest. */
#ifndef RUNNER_H
#define RUNNER_H

#include <stdint.h>
#include <stdio.h>

struct kvm_run;
struct kvm_sregs;

#define MAX_SLOTS 16
#define MAX_VCPUS 4
#define PAGE 4096

/* A memslot: guest memory [gpa, gpa + size) is the VMM's memory at `hva`. A slot that was deleted keeps its memory. */
struct slot {
	uint64_t gpa, size;
	uint8_t *hva;
	uint32_t flags;		/* KVM_MEM_* */
	int live;
};

extern struct slot slots[MAX_SLOTS];
uint8_t *guest_memory(uint64_t gpa);	/* NULL: no slot is there */
extern char guest_name[64], guest_folder[256];
extern int vm_fd, vcpu_count, vcpu_now;
extern int seq;			/* markers that the guest has given so far */

void die(const char *what);	/* prints one line with errno, ends the process */
FILE *output(const char *suffix);	/* the file OUT/NAME.suffix */

/* slots.c: one command of the script each, with the rest of its line */
void do_slot(char *arguments);
void do_flags(char *arguments);
void do_move(char *arguments);
void do_delslot(char *arguments);
void do_readd(char *arguments);
void do_load(char *arguments);
void do_poke(char *arguments);
void do_madvise(char *arguments);
void do_mprotect(char *arguments);
void do_dirtylog(char *arguments);
void do_manual(char *arguments);
void do_clearlog(char *arguments);

/* trace.c: the kernel's trace */
void trace_start(void);
int trace_stop(void);		/* and save it: NAME.trace.txt and NAME.raw; 0: events were lost, nothing is saved */
void mark(const char *format, ...) __attribute__((format(printf, 1, 2)));
int latest_root(uint64_t *root, int *level);
void tell_other_exits(void);
int other_exits(void);

/* steps.c: plain stores of the guest, found by single steps */
extern int stepping;
void do_find(char *arguments);
void steps_begin(void);
void step(int vcpu_fd);
int stepped(int vcpu_fd, const struct kvm_run *run);

/* guest_tables.c: where a guest's own tables lead */
uint8_t *memory_at(const struct kvm_sregs *sregs, uint64_t va);		/* NULL: nowhere */
uint64_t read_at(const struct kvm_sregs *sregs, uint64_t va, unsigned size);

/* handlers.c: the guest is stepped on where an event is delivered */
void handlers_plant(int vcpu_fd, const struct kvm_sregs *sregs, uint64_t rip, int changed);
int handlers_lift(const struct kvm_sregs *sregs, uint64_t va);

/* observe.c: what the kernel holds at this moment */
uint64_t frame_of(const void *address);		/* 0: the host has given it none yet */
typedef void found_writable(uint64_t va, uint64_t frame, int dirty);
void each_writable(found_writable *found);	/* each page that the guest may write now, by the tables it runs on, and whether it has */
void observe_open(void);
void dump_tables(const char *tag);
void write_counters(const char *tag);
void write_frames(void);

#endif
