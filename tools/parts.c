// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an engine built with `--flavour parts` calls in each part of it, that is between two jumps: the first time a part is
 * met, a line with the clock, its offset and its module goes into a file. Who runs the engine sets the clock.
 *
 * Made to be preloaded. A child that is forked goes on in its parent's file; one that is executed takes a file of its own in
 * the folder that the environment says.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS (1u << 18)
#define FOLDER "EXERCISED_FOLDER"

uint64_t exercised_clock;

static uintptr_t met[SLOTS];
static int file = -1;

/* Forget what was met, and write what is met from now on to this file. */
int exercised_begin(const char *path)
{
	if (file >= 0)
		close(file);
	memset(met, 0, sizeof(met));
	file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	return file;
}

static void begin_by_environment(void)
{
	const char *folder = getenv(FOLDER);
	char path[4096];

	if (!folder)
		return;
	snprintf(path, sizeof(path), "%s/%d", folder, getpid());
	exercised_begin(path);
}

static void tell(uintptr_t at)
{
	Dl_info module;

	if (file < 0)
		begin_by_environment();
	if (file >= 0 && dladdr((void *)at, &module))
		dprintf(file, "%llu %lx %s\n", (unsigned long long)exercised_clock, at - (uintptr_t)module.dli_fbase, module.dli_fname);
}

void __sanitizer_cov_trace_pc(void)
{
	uintptr_t at = (uintptr_t)__builtin_return_address(0);
	uint32_t slot = at * 0x9e3779b97f4a7c15 >> 46;

	while (met[slot] != at) {
		if (!met[slot]) {
			tell(at);
			met[slot] = at;
			return;
		}
		slot = (slot + 1) % SLOTS;
	}
}
