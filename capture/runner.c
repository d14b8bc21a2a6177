// SPDX-License-Identifier: GPL-2.0-only
/* A VMM for one guest, on bare /dev/kvm ioctls: runs inside the captured kernel, driven by a script.
 *
 *	runner GUESTS/NAME.kvs OUT
 *
 * reads the script line by line (capture/README.md lists its commands) and leaves OUT/NAME.*: the trace, with a line for
 * each thing the guest says on its ports and each thing the host does; dumps of the real shadow tables; counters; frames.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <unistd.h>
#include <linux/kvm.h>

#include "runner.h"

#define LOOK 10			/* seconds from one look at the guest to the next */
#define PATIENCE 5000		/* ticks without a word of the guest, 20 s of a machine that gets all it wants; a wrong one may loop for ever */
#define MOMENT 100		/* microseconds */
#define TSS_ADDRESS 0xfffbd000	/* where KVM may put its own real-mode TSS: above all guest memory */
#define MMIO_BYTE 0x5a		/* what a read of no memory gives */

/* The guest's ports. A value longer than 32 bits comes in two halves. */
enum port {
	PORT_OP = 0xe0, PORT_HOST = 0xe1, PORT_CR2 = 0xe2, PORT_ERROR = 0xe3, PORT_VALUE = 0xe4, PORT_CR2_HIGH = 0xe5,
	PORT_BAD = 0xe6, PORT_GP = 0xe7, PORT_EXIT_CODE = 0xe8, PORT_EXIT_INFO1 = 0xe9, PORT_EXIT_INFO2 = 0xea,
	PORT_L2_OP = 0xeb,
};

char guest_name[64], guest_folder[256];
int vm_fd = -1, seq, vcpu_count, vcpu_now;

static int kvm_fd = -1, vcpu_fd = -1, dump_each_op;
static int lost;			/* the guest has taken an exception that it does not handle */
static volatile sig_atomic_t look_now;
static int patience = PATIENCE;
static struct kvm_run *kvm_run;
static struct { int fd; struct kvm_run *run; } vcpus[MAX_VCPUS];	/* vcpu_fd and kvm_run are those of vcpu_now */
static char output_folder[256];

void die(const char *what)
{
	printf("RUNNER FAIL %s: %s: %s\n", guest_name, what, strerror(errno));
	exit(1);
}

FILE *output(const char *suffix)
{
	char path[512];

	snprintf(path, sizeof path, "%s/%s.%s", output_folder, guest_name, suffix);
	FILE *file = fopen(path, "w");
	if (!file)
		die(path);
	return file;
}

static void on_alarm(int signal)
{
	(void)signal;
	look_now = 1;
}

static void look_every(int milliseconds)
{
	struct timeval interval = { .tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000 };

	setitimer(ITIMER_REAL, &(struct itimerval){ .it_interval = interval, .it_value = interval }, NULL);
}

/* Timer interrupts that this kernel has taken: when the host lets its machine wait there are none. */
static unsigned long ticks(void)
{
	static char text[16384];
	int fd = open("/proc/interrupts", O_RDONLY);
	ssize_t length = 0, part;

	while (fd >= 0 && (part = read(fd, text + length, sizeof text - 1 - length)) > 0)
		length += part;
	close(fd);
	text[length] = 0;
	const char *local_timer = strstr(text, "LOC:");
	if (!local_timer)
		die("/proc/interrupts");
	return strtoul(local_timer + strlen("LOC:"), NULL, 10);
}

/* A guest that gets on is left to it, however slow its host is, and the console hears of it. */
static int gets_nowhere(void)
{
	static unsigned long since;
	static int last_seq = -1;
	unsigned long now = ticks();

	look_now = 0;
	if (seq != last_seq) {
		last_seq = seq;
		since = now;
		printf("AT %s, %d markers\n", guest_name, seq);
	}
	return now - since > (unsigned long)patience;
}

/* --- VM and vCPU --------------------------------------------------------------------------------------------- */

/* patience TICKS: before the ring is full of what a guest does that is known never to end */
static void do_patience(char *arguments)
{
	patience = atoi(arguments);
	look_every(20);
}

/* vm */
static void do_vm(char *arguments)
{
	(void)arguments;
	mark("H create vm");
	vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	if (vm_fd < 0 || ioctl(vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS))
		die("KVM_CREATE_VM");
}

static void write_cpuid(const struct kvm_cpuid2 *cpuid)
{
	FILE *file = output("cpuid.txt");

	for (unsigned i = 0; i < cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *leaf = &cpuid->entries[i];

		fprintf(file, "%08x.%x %08x %08x %08x %08x\n", leaf->function, leaf->index, leaf->eax, leaf->ebx, leaf->ecx, leaf->edx);
	}
	fclose(file);
}

static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 leaves[128]; } cpuid;

/* What KVM offers, from which nofeature, physbits and vendor take away before the vCPU is made. */
static void read_cpuid(void)
{
	if (cpuid.head.nent)
		return;
	cpuid.head.nent = 128;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid))
		die("KVM_GET_SUPPORTED_CPUID");
}

static struct kvm_cpuid_entry2 *leaf_of(unsigned function)
{
	read_cpuid();
	for (unsigned i = 0; i < cpuid.head.nent; i++)
		if (cpuid.leaves[i].function == function && cpuid.leaves[i].index == 0)
			return &cpuid.leaves[i];
	die("a CPUID leaf");
	return NULL;
}

/* nofeature LEAF eax|ebx|ecx|edx BIT */
static void do_nofeature(char *arguments)
{
	unsigned leaf, bit;
	char name[4];

	if (sscanf(arguments, "%x %3s %u", &leaf, name, &bit) != 3 || name[1] < 'a' || name[1] > 'd' || bit > 31)
		die("nofeature");
	(&leaf_of(leaf)->eax)[name[1] - 'a'] &= ~(1u << bit);
}

/* physbits COUNT: of the guest's physical addresses */
static void do_physbits(char *arguments)
{
	struct kvm_cpuid_entry2 *leaf = leaf_of(0x80000008);

	leaf->eax = (leaf->eax & ~0xffu) | atoi(arguments);
}

/* vendor TWELVE-LETTERS: GenuineIntel, AuthenticAMD */
static void do_vendor(char *arguments)
{
	char *name = arguments + strspn(arguments, " ");

	if (strlen(name) != 12)
		die("vendor");
	static const unsigned told_by[] = { 0, 0x80000000 };

	for (size_t i = 0; i < sizeof told_by / sizeof told_by[0]; i++) {
		struct kvm_cpuid_entry2 *leaf = leaf_of(told_by[i]);

		memcpy(&leaf->ebx, name, 4);
		memcpy(&leaf->edx, name + 4, 4);
		memcpy(&leaf->ecx, name + 8, 4);
	}
}

/* noquirks BITS: KVM_X86_QUIRK_* that this VM goes without */
static void do_noquirks(char *arguments)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_DISABLE_QUIRKS2, .args = { strtoull(arguments, NULL, 16) } };

	mark("H noquirks bits=%llx", cap.args[0]);
	if (ioctl(vm_fd, KVM_ENABLE_CAP, &cap))
		die("KVM_CAP_DISABLE_QUIRKS2");
}

/* vcpu: one more, which `state` then sets up */
static void do_vcpu(char *arguments)
{
	(void)arguments;
	read_cpuid();
	if (vcpu_count == MAX_VCPUS)
		die("vcpu");
	vcpu_now = vcpu_count++;
	mark("H create vcpu");
	vcpu_fd = ioctl(vm_fd, KVM_CREATE_VCPU, vcpu_now);
	if (vcpu_fd < 0)
		die("KVM_CREATE_VCPU");
	kvm_run = mmap(NULL, ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
	if (kvm_run == MAP_FAILED)
		die("kvm_run");
	vcpus[vcpu_now].fd = vcpu_fd;
	vcpus[vcpu_now].run = kvm_run;
	if (ioctl(vcpu_fd, KVM_SET_CPUID2, &cpuid))
		die("KVM_SET_CPUID2");
	write_cpuid(&cpuid.head);
	mark("H vcpu ready");
}

/* busy: from here on another task, which goes first, wants the CPU every moment, so that KVM has to leave it in the midst of what it
 * does. Before `vm`: a fork makes memory that is there already read-only until it is written. */
static void do_busy(char *arguments)
{
	(void)arguments;
	pid_t runner = getpid(), other = fork();

	if (other < 0)
		die("busy");
	if (other)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){ .sched_priority = 1 }))
		die("SCHED_FIFO");
	while (getppid() == runner)
		usleep(MOMENT);
	_exit(0);
}

/* on NUMBER: from here on this vCPU runs */
static void do_on(char *arguments)
{
	int level, number = atoi(arguments);
	uint64_t root;

	if (number < 0 || number >= vcpu_count)
		die("on");
	latest_root(&root, &level);	/* what was loaded until now is the other's */
	vcpu_now = number;
	vcpu_fd = vcpus[number].fd;
	kvm_run = vcpus[number].run;
	mark("H on vcpu=%d", number);
}

/* nrpages COUNT: the most shadow pages that KVM may use */
static void do_nrpages(char *arguments)
{
	mark("H set_nr_mmu_pages%s", arguments);
	ioctl(vm_fd, KVM_SET_NR_MMU_PAGES, strtoul(arguments, NULL, 0));
}

/* window: the next run ends where KVM would take an interrupt from this VMM. With interrupts off that is behind VMRUN, before L2
 * has taken its first step, as KVM then says that it is busy. */
static void do_window(char *arguments)
{
	(void)arguments;
	kvm_run->request_interrupt_window = 1;
}

/* translate VA: as the vCPU would translate it now */
static void do_translate(char *arguments)
{
	struct kvm_translation translation = { .linear_address = strtoull(arguments, NULL, 16) };

	mark("H translate va=%llx", translation.linear_address);
	if (ioctl(vcpu_fd, KVM_TRANSLATE, &translation))
		die("KVM_TRANSLATE");
	mark("H translated gpa=%llx valid=%d", translation.physical_address, translation.valid);
}

/* dumpeach 0|1: dump the shadow tables before each operation of the guest */
static void do_dumpeach(char *arguments)
{
	dump_each_op = atoi(arguments);
}

/* stats TAG */
static void do_stats(char *arguments)
{
	write_counters(arguments + strspn(arguments, " "));
}

/* The value of KEY=VALUE among the words; 0 if it is not there. */
static uint64_t value_of(const char *words, const char *key)
{
	char pattern[32];

	snprintf(pattern, sizeof pattern, " %s=", key);
	const char *at = strstr(words, pattern);
	return at ? strtoull(at + strlen(pattern), NULL, 0) : 0;
}

/* A flat segment of 4 GiB; `type` as in a descriptor (APM vol. 2, 4.7). */
static struct kvm_segment flat_segment(int selector, int type, int dpl)
{
	return (struct kvm_segment){ .selector = selector, .type = type, .dpl = dpl, .db = 1, .s = 1, .present = 1,
				     .limit = 0xffffffff, .g = 1 };
}

static struct kvm_segment real_segment(int type)
{
	return (struct kvm_segment){ .type = type, .s = 1, .present = 1, .limit = 0xffff };
}

static void set_segments(struct kvm_sregs *sregs, int mode, const char *words)
{
	struct kvm_segment data = mode == 16 ? real_segment(3) : flat_segment(0x23, 3, 3);

	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	if (mode == 16) {
		sregs->cs = real_segment(11);
		sregs->idt.base = 0;
		sregs->idt.limit = 0x3ff;
		return;
	}
	sregs->cs = flat_segment(0x08, 11, 0);
	sregs->cs.db = mode == 32;
	sregs->cs.l = mode == 64;
	sregs->ss = flat_segment(0x10, 3, 0);
	/* A busy 32-bit TSS (type 11) makes QEMU's VMRUN give up: loaded as an available one. */
	sregs->tr = (struct kvm_segment){ .selector = 0x28, .type = mode == 64 ? 11 : 9, .present = 1, .limit = 0x67,
					  .base = value_of(words, "tss") };
	sregs->gdt.base = value_of(words, "gdt");
	sregs->gdt.limit = 0x3f;
	sregs->idt.base = value_of(words, "idt");
	sregs->idt.limit = 0xfff;
}

/* state mode=16|32|64 cr0= cr3= cr4= efer= rip= rsp= gdt= idt= tss= */
static void do_state(char *arguments)
{
	int mode = value_of(arguments, "mode");
	struct kvm_regs regs = { .rip = value_of(arguments, "rip"), .rsp = value_of(arguments, "rsp"), .rflags = 2 };
	struct kvm_sregs sregs;

	if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs))
		die("KVM_GET_SREGS");
	sregs.cr0 = value_of(arguments, "cr0");
	sregs.cr3 = value_of(arguments, "cr3");
	sregs.cr4 = value_of(arguments, "cr4");
	sregs.efer = value_of(arguments, "efer");
	set_segments(&sregs, mode, arguments);
	mark("H set_sregs mode=%d cr0=%llx cr3=%llx cr4=%llx efer=%llx rip=%llx rsp=%llx", mode, sregs.cr0, sregs.cr3, sregs.cr4,
	     sregs.efer, regs.rip, regs.rsp);
	if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) || ioctl(vcpu_fd, KVM_SET_REGS, &regs))
		die("KVM_SET_SREGS");
}

/* --- running ------------------------------------------------------------------------------------------------- */

static void guest_op(const char *kind, uint32_t number)
{
	char tag[32];

	if (dump_each_op) {
		snprintf(tag, sizeof tag, "before-%s-%u", kind, number);
		dump_tables(tag);
	}
	mark("G seq=%d %s=%u", seq, kind, number);
}

/* The guest wrote to a port. True if it calls for the script. */
static int guest_out(int port, uint32_t value)
{
	seq++;
	switch (port) {
	case PORT_OP: guest_op("op", value); break;
	case PORT_L2_OP: guest_op("l2op", value); break;
	case PORT_HOST: mark("G seq=%d hostcall=%u", seq, value); return 1;
	case PORT_CR2: mark("G seq=%d pf cr2lo=%x", seq, value); break;
	case PORT_CR2_HIGH: mark("G seq=%d pf cr2hi=%x", seq, value); break;
	case PORT_ERROR: mark("G seq=%d pf err=%x", seq, value); break;
	case PORT_VALUE: mark("G seq=%d val=%x", seq, value); break;
	case PORT_GP: mark("G seq=%d gp err=%x", seq, value); break;
	case PORT_EXIT_CODE: mark("G seq=%d l2exit code=%x", seq, value); break;
	case PORT_EXIT_INFO1: mark("G seq=%d l2exit info1=%x", seq, value); break;
	case PORT_EXIT_INFO2: mark("G seq=%d l2exit info2=%x", seq, value); break;
	case PORT_BAD:
		mark("G seq=%d BAD=%x", seq, value);
		printf("RUNNER FAIL %s: the guest took exception %u, which it does not handle\n", guest_name, value & 0xff);
		lost = 1;
		break;
	default: mark("G seq=%d port=%x val=%x", seq, port, value);
	}
	return 0;
}

static void mmio(void)
{
	seq++;
	if (!kvm_run->mmio.is_write)
		memset(kvm_run->mmio.data, MMIO_BYTE, sizeof kvm_run->mmio.data);
	mark("G seq=%d mmio gpa=%llx len=%u write=%u", seq, kvm_run->mmio.phys_addr, kvm_run->mmio.len, kvm_run->mmio.is_write);
}

/* A guest that has gone astray reads a port. */
static void port_in(void)
{
	mark("H io in port=%x", kvm_run->io.port);
	memset((uint8_t *)kvm_run + kvm_run->io.data_offset, 0, kvm_run->io.size * kvm_run->io.count);
}

/* An exit that no guest should make: say where it was. */
static void unexpected_exit(void)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;

	ioctl(vcpu_fd, KVM_GET_REGS, &regs);
	ioctl(vcpu_fd, KVM_GET_SREGS, &sregs);
	mark("H exit_reason=%u rip=%llx", kvm_run->exit_reason, regs.rip);
	printf("RUNNER FAIL %s: KVM_EXIT %u at rip %llx, cr0 %llx cr2 %llx cr3 %llx cr4 %llx efer %llx\n", guest_name,
	       kvm_run->exit_reason, regs.rip, sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4, sregs.efer);
}

/* Run until the guest calls the host or halts, which is a call without a number. True if the script may go on. */
static int run_guest(void)
{
	mark("H run");
	steps_begin();
	for (;;) {
		if (stepping)
			step(vcpu_fd);
		if (look_now && gets_nowhere()) {
			mark("H WATCHDOG");
			printf("RUNNER FAIL %s: not a word from it for %d ticks\n", guest_name, patience);
			return 0;
		}
		int failed = ioctl(vcpu_fd, KVM_RUN, 0) < 0 ? errno : 0;

		if (failed && failed != EINTR && failed != EAGAIN)
			die("KVM_RUN");
		if ((stepping && stepped(vcpu_fd, kvm_run)) || failed)
			continue;
		if (kvm_run->exit_reason == KVM_EXIT_IRQ_WINDOW_OPEN) {
			kvm_run->request_interrupt_window = 0;
			mark("H window");
			return 1;
		}
		if (kvm_run->exit_reason == KVM_EXIT_HLT && !lost) {
			mark("H hlt");
			return 1;
		}
		if (kvm_run->exit_reason == KVM_EXIT_IO && kvm_run->io.direction == KVM_EXIT_IO_OUT) {
			uint32_t value = 0;

			memcpy(&value, (uint8_t *)kvm_run + kvm_run->io.data_offset, kvm_run->io.size);
			if (guest_out(kvm_run->io.port, value))
				return 1;
		} else if (kvm_run->exit_reason == KVM_EXIT_IO) {
			port_in();
		} else if (kvm_run->exit_reason == KVM_EXIT_MMIO) {
			mmio();
		} else {
			unexpected_exit();
			return 0;
		}
	}
}

/* --- the script ---------------------------------------------------------------------------------------------- */

static const struct { const char *word; void (*act)(char *arguments); } commands[] = {
	{ "patience", do_patience }, { "vm", do_vm }, { "nofeature", do_nofeature }, { "physbits", do_physbits }, { "vendor", do_vendor },
	{ "noquirks", do_noquirks }, { "vcpu", do_vcpu }, { "busy", do_busy }, { "on", do_on }, { "window", do_window }, { "translate", do_translate },
	{ "slot", do_slot }, { "find", do_find }, { "load", do_load }, { "state", do_state },
	{ "dumpeach", do_dumpeach }, { "stats", do_stats }, { "flags", do_flags }, { "move", do_move }, { "delslot", do_delslot },
	{ "readd", do_readd }, { "poke", do_poke }, { "madvise", do_madvise }, { "mprotect", do_mprotect },
	{ "dirtylog", do_dirtylog }, { "manual", do_manual }, { "clearlog", do_clearlog }, { "nrpages", do_nrpages },
};

/* Do one line. True if the script may go on. */
static int do_line(char *line)
{
	char *arguments = line + strcspn(line, " \n");
	size_t length = arguments - line;

	arguments[strcspn(arguments, "\n")] = 0;
	if (length == 3 && !strncmp(line, "run", 3))
		return run_guest();
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		if (strlen(commands[i].word) == length && !strncmp(line, commands[i].word, length)) {
			commands[i].act(arguments);
			return 1;
		}
	}
	errno = EINVAL;
	die(line);
	return 0;
}

/* Destroying the VM is part of the capture: it frees all shadow pages. */
static void close_vm(void)
{
	mark("H closing");
	for (int i = 0; i < vcpu_count; i++) {
		munmap(vcpus[i].run, ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0));
		close(vcpus[i].fd);
	}
	close(vm_fd);
	mark("H closed");
}

static void take_names(const char *script, const char *out)
{
	const char *name = strrchr(script, '/');

	name = name ? name + 1 : script;
	snprintf(guest_folder, sizeof guest_folder, "%.*s", (int)(name - script), script);
	snprintf(guest_name, sizeof guest_name, "%.*s", (int)strcspn(name, "."), name);
	snprintf(output_folder, sizeof output_folder, "%s", out);
}

int main(int argc, char **argv)
{
	char line[4096];
	int completed = 1;

	if (argc != 3) {
		printf("usage: runner GUESTS/NAME.kvs OUT\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IONBF, 0);
	take_names(argv[1], argv[2]);
	FILE *script = fopen(argv[1], "r");
	if (!script)
		die(argv[1]);
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);
	look_every(LOOK * 1000);
	observe_open();
	trace_start();
	kvm_fd = open("/dev/kvm", O_RDWR);
	if (kvm_fd < 0)
		die("/dev/kvm");
	while (completed && fgets(line, sizeof line, script))
		completed = do_line(line);
	dump_tables("final");
	write_counters("final");
	write_frames();
	close_vm();
	completed &= trace_stop();
	printf("RAN %s %s, %d markers\n", guest_name, completed ? "to its end" : "not to its end", seq);
	return !completed;
}
