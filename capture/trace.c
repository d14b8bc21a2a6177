// SPDX-License-Identifier: GPL-2.0-only
/* The kernel's trace: which events are recorded, the lines that the runner adds, and where the root was last loaded. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runner.h"

#define TRACEFS "/sys/kernel/tracing/"
#define ROOTS TRACEFS "instances/roots/"	/* an instance of its own: reading it takes nothing from the main buffer */

static int marker_fd = -1, roots_fd = -1;

/* Events of the kvm group that tell of clocks and interrupts, not of memory: they differ from run to run. */
static const char *const unwanted[] = {
	"kvm_fpu", "kvm_track_tsc", "kvm_write_tsc_offset", "kvm_update_master_clock", "kvm_pvclock_update",
	"kvm_halt_poll_ns", "kvm_wait_lapic_expire", "kvm_vcpu_wakeup", "kvm_ack_irq", "kvm_set_irq", "kvm_cpuid",
	"kvm_apic", "kvm_ple_window_update",
};

static void control(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		printf("%s: %s: %s\n", guest_name, path, strerror(errno));
	close(fd);
}

/* The probes of `init` (group kv) may be missing on another kernel: then they are not switched. */
static void control_if_there(const char *path, const char *value)
{
	if (!access(path, W_OK))
		control(path, value);
}

static void enable(const char *value)
{
	control(TRACEFS "events/kvmmmu/enable", value);
	control(TRACEFS "events/kvm/enable", value);
	control_if_there(TRACEFS "events/kv/enable", value);
}

/* Somebody else traces this guest, and has set all up: the script `tools` does so. */
static int others_trace(void)
{
	return getenv("OTHERS_TRACE") != NULL;
}

static void start_recording(void)
{
	char path[256];

	control(TRACEFS "tracing_on", "0");
	control(TRACEFS "trace", "");
	control(TRACEFS "buffer_size_kb", "49152");	/* the longest guest needs a tenth */
	enable("1");
	for (size_t i = 0; i < sizeof unwanted / sizeof unwanted[0]; i++) {
		snprintf(path, sizeof path, TRACEFS "events/kvm/%s/enable", unwanted[i]);
		control_if_there(path, "0");
	}
	control(TRACEFS "tracing_on", "1");
}

void trace_start(void)
{
	control_if_there(ROOTS "trace", "");
	control_if_there(ROOTS "events/kvroot/enable", "1");
	roots_fd = open(ROOTS "trace_pipe", O_RDONLY | O_NONBLOCK);
	marker_fd = open(TRACEFS "trace_marker", O_WRONLY);
	if (roots_fd < 0 || marker_fd < 0)
		die("trace_marker, trace_pipe");
	if (!others_trace())
		start_recording();
}

/* Write a line into the trace. "G ..." is the guest's word, "H ..." an action of this VMM. */
void mark(const char *format, ...)
{
	char line[512];
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line - 1, format, arguments);
	va_end(arguments);
	line[length++] = '\n';
	if (write(marker_fd, line, length) < 0)
		die("trace_marker");
}

/* From here on the instance of the roots tells of exits, too, but for those of a step (#DB). */
void tell_other_exits(void)
{
	control(ROOTS "events/kvm/kvm_exit/filter", "exit_reason != 0x41");
	control(ROOTS "events/kvm/kvm_exit/enable", "1");
}

static uint64_t last_root[MAX_VCPUS];
static int last_level[MAX_VCPUS], exits_told;

/* What the instance of the roots has told since. */
static void read_roots(void)
{
	static char text[65536];
	ssize_t length;

	while ((length = read(roots_fd, text, sizeof text - 1)) > 0) {
		text[length] = 0;
		for (char *at = text; (at = strstr(at, "root=0x")); at++) {
			char *level_at = strstr(at, "level=");

			last_root[vcpu_now] = strtoull(at + strlen("root="), NULL, 16);
			if (level_at)
				last_level[vcpu_now] = atoi(level_at + strlen("level="));
		}
		exits_told |= strstr(text, "kvm_exit:") != NULL;
	}
}

/* True if the guest has left for more than a step since this was last asked. */
int other_exits(void)
{
	read_roots();
	int told = exits_told;

	exits_told = 0;
	return told;
}

/* The root and its level as KVM last gave them to the CPU (probe kvroot/load_pgd). False before the first load. */
int latest_root(uint64_t *root, int *level)
{
	read_roots();
	*root = last_root[vcpu_now];
	*level = last_level[vcpu_now];
	return last_root[vcpu_now] && last_root[vcpu_now] != ~0ull;
}

static void copy(const char *path, int flags, const char *suffix)
{
	static char bytes[1 << 16];
	FILE *to = output(suffix);
	int from = open(path, O_RDONLY | flags);
	ssize_t length;

	if (from < 0)
		die(path);
	/* Pages of the ring buffer are read one by one: a longer read is answered with one page anyway. */
	while ((length = read(from, bytes, flags & O_NONBLOCK ? PAGE : sizeof bytes)) > 0)
		fwrite(bytes, 1, length, to);
	close(from);
	fclose(to);
}

/* How many events the buffer had no room for. */
static unsigned long lost_events(void)
{
	char text[1024] = "";
	int fd = open(TRACEFS "per_cpu/cpu0/stats", O_RDONLY);
	unsigned long overrun = 0, dropped = 0;

	if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
		die("per_cpu/cpu0/stats");
	close(fd);
	const char *over = strstr(text, "\noverrun: "), *drop = strstr(text, "\ndropped events: ");

	if (!over || sscanf(over, " overrun: %lu", &overrun) != 1 || (drop && sscanf(drop, " dropped events: %lu", &dropped) != 1))
		die("per_cpu/cpu0/stats: no overrun told");
	return overrun + dropped;
}

int trace_stop(void)
{
	if (others_trace())
		return 1;
	control(TRACEFS "tracing_on", "0");
	enable("0");
	unsigned long lost = lost_events();

	if (lost) {
		printf("RUNNER FAIL %s: %lu events were lost, so it is no capture: let the guest do less\n", guest_name, lost);
		return 0;
	}
	copy(TRACEFS "trace", 0, "trace.txt");
	copy(TRACEFS "per_cpu/cpu0/trace_pipe_raw", O_NONBLOCK, "raw");
	return 1;
}
