# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from shadowmmu.engine.arena.state cimport GuestException, KvmVcpu
from shadowmmu.machine.cpu.registers cimport Registers
from shadowmmu.machine.cpu.stop_request cimport RequestPtr
from shadowmmu.machine.cpu.svm_entry cimport EntryPtr
from shadowmmu.machine.devices.console cimport TextPtr
from shadowmmu.machine.devices.uart cimport PortPtr
from shadowmmu.machine.emulator.code_places cimport PlacePtr, PlacesPtr
from shadowmmu.machine.memory.translations cimport TlbPtr
from shadowmmu.machine.vcpu.code_pages cimport MarksPtr
from shadowmmu.machine.vcpu.cpuid_leaves cimport LeavesPtr
from shadowmmu.machine.vcpu.delivery_state cimport Delivery
from shadowmmu.machine.vcpu.svm_state cimport SvmPtr

cdef extern from *:
    const uint64_t NO_DEADLINE "UINT64_MAX"

cdef enum:
    SEGMENT_BYTES = 24         # of one in the context: u32 selector, u64 base at 8, u32 limit, u32 flags
    FLAG_LONG = 1 << 21        # of a segment's flags, the second word of its descriptor
    FLAG_BIG = 1 << 22
    CPL = 3                    # of the mode flags
    INTERRUPT_SHADOW = 1 << 3
    WALKS_KEPT = 4
    NOTED = 8

cdef enum:
    OUTCOMES = 21
    REFLECTED = 0x101          # exit codes of which those below 100h count one by one, and the nested page fault

cpdef enum Served:             # what the exits that were served came to
    FIXED = 0
    SPURIOUS = 1
    CR_READ = 2
    CR_WRITE = 3
    INVLPG = 4
    INJECTED = 5
    INTERRUPT = 6
    EMULATED = 7
    SVM = 8                    # VMRUN and its like
    OWN_FAULT = 9              # #PF of L2's own tables, which L1 takes
    FAULT_FOR_L1 = 10          # the same with shadow paging
    NESTED_FIXED = 11          # nested page faults
    NESTED_SPURIOUS = 12
    NESTED_FOR_L1 = 13
    SYSCALL = 14
    NESTED_EMULATED = 15
    RDTSC = 16
    PAUSE = 17
    CPUID = 18
    MSR = 19
    OWN_INJECTED = 20          # the same #PF, of who has no L1; the last of OUTCOMES

ctypedef int (*translate_t)(void *engine, uint64_t address, int access, uint64_t *place) noexcept nogil
ctypedef int (*context_t)(void *engine, void *context) noexcept nogil
ctypedef int (*reg_t)(void *engine, int register, void *value) noexcept nogil
ctypedef int (*stop_t)(void *engine) noexcept nogil
ctypedef void (*slow_syscall_t)(void *engine, void *data) noexcept nogil
ctypedef uint32_t (*slow_in_t)(void *engine, uint32_t port, int size, void *data) noexcept nogil
ctypedef void (*slow_out_t)(void *engine, uint32_t port, int size, uint32_t value, void *data) noexcept nogil
ctypedef void (*slow_t)(void *engine, uint32_t number, void *data) noexcept nogil

cdef struct Walk:              # of the guest's tables, which has been done
    uint64_t gva, access, gpa
    GuestException exception

cdef struct Noted:             # a #PF that was given to the guest
    uint64_t at                # exits of the machine before
    uint32_t error_code
    uint64_t address, rip, base
    uint8_t cpl, bits
ctypedef Noted *NotedPtr

cdef struct Quick:
    KvmVcpu *vcpu
    PlacesPtr places
    TlbPtr tlb
    MarksPtr code
    SvmPtr svm
    LeavesPtr leaves           # of CPUID
    PortPtr serial
    TextPtr text               # what the guest prints
    void *owner                # the engine's Vcpu
    void *tables               # memory.shadow_tables.ShadowTables
    void *nested_tables        # memory.nested_tables.NestedTables
    void *guest_tables         # memory.guest_tables.GuestTables
    void *devices              # quick_devices.QuickDevices
    void *audit                # quick_audit.QuickAudit, or NULL
    bint is_pc                 # it has an APIC, and hypercalls
    bint delivers              # the back end knows what CS and SS make of the mode flags
    # Where the CPU back end has things: seam.Places.
    context_t save             # reads the processor context into `context`
    context_t restore
    void *context
    uint64_t *gpr              # in the context; so the next
    uint64_t *rip
    uint8_t *mode
    uint8_t *segments
    uint64_t *cr3
    uint64_t *debug            # DR6, DR7
    uint64_t *kernel_gs_base
    EntryPtr entry             # what the guest runs with, or is to be entered with
    uint32_t *error_code
    uint64_t *address          # EXITINFO2
    uint64_t *executed         # instructions so far
    RequestPtr request         # what counts them
    reg_t reg_read, reg_write
    int flags_register, root_register, code_register
    translate_t translate      # where code that has just been fetched lies
    uint64_t stub              # address of code that is not the guest's, nor is its page
    stop_t stop
    slow_t slow                # the hook of all other exits
    slow_syscall_t slow_syscall
    slow_in_t slow_in
    slow_out_t slow_out
    # Of this run.
    bint apic_on               # CPUID may tell of it
    uint64_t wrap              # addresses have so many bits
    bint to_enter              # the next run is to enter the guest with `registers`
    uint64_t left              # exits that may be served here
    uint64_t slice, turn_end, deadline
    uint64_t ticks             # that an exit takes of `deadline`
    uint64_t apart             # what the machine's clock has more than the instructions of this CPU and the ticks of exits served here
    bint alone                 # no other vCPU waits for its turn
    bint waits                 # an interrupt may wait, which L1 would take from its L2
    uint64_t last              # instructions that were executed at the last exit served here
    # Of this exit.
    uint64_t flags             # EFLAGS
    bint reload                # CR3 is to be loaded, though it is the same
    bint anew                  # the guest is to be entered anew, with these
    Registers registers
    int walked, taken          # walks that were done, and those that the handlers have been told
    Walk walks[WALKS_KEPT]
    Delivery delivery
    int result                 # of a fault that the MMU has looked at, but which is not done with that
    # So far.
    uint64_t first             # exits of the machine before those that were served
    uint64_t served
    uint64_t ported            # accesses to ports that were done without Python
    uint64_t faults            # of them that were noted, the last ones in `noted`
    Noted noted[NOTED]
    uint64_t interrupts[256]   # by vector
    uint64_t outcomes[OUTCOMES]
    uint64_t reflected[REFLECTED] # exits of L2 that L1 has had, by exit code
    bint l1_is_lost
    bint met_alignment         # code was translated that is to check alignment
    int entered                # what the entry behind an exit came to, if the guest cannot go on

ctypedef Quick *QuickPtr

cdef void came_to(QuickPtr quick, int outcome) noexcept nogil
cdef bint look(void *engine, QuickPtr quick) noexcept nogil
cdef bint has_long_code(QuickPtr quick) noexcept nogil
cdef uint8_t bits_of_code(QuickPtr quick) noexcept nogil
cdef uint64_t segment_base(QuickPtr quick, int segment) noexcept nogil
cdef uint64_t walk(QuickPtr quick, uint64_t gva, uint64_t access) noexcept nogil
cdef PlacePtr instruction_at_rip(QuickPtr quick, uint8_t doing) noexcept nogil
cdef PlacePtr known_at_rip(QuickPtr quick) noexcept nogil
cdef bint is_there(QuickPtr quick, PlacePtr place) noexcept nogil
cdef bint is_of_rip(QuickPtr quick) noexcept nogil
cdef uint64_t next_rip(QuickPtr quick, PlacePtr place) noexcept nogil
cdef void complete(void *engine, QuickPtr quick, PlacePtr place) noexcept nogil
