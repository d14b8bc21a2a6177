"""`Vm` and `Vcpu`: the engine for Python users. Addresses are in bytes unless a name says gfn.

A machine calls `Vcpu.enter` before every guest entry, `Vcpu.page_fault` for a #PF exit, and the setters for
control-register writes. Guest memory outside the MMU's knowledge is reached by `Vm.read_guest` and `write_guest`.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.shadowmmu.engine.dirty import get_dirty_log
from cython.cimports.shadowmmu.engine.fault import inject_page_fault, mmu_page_fault
from cython.cimports.shadowmmu.engine.guest_memory import read_guest, write_guest
from cython.cimports.shadowmmu.engine.host_memory import discard_hva_range, protect_hva_range
from cython.cimports.shadowmmu.engine.invlpg import kvm_invlpg
from cython.cimports.shadowmmu.engine.memslots import gfn_to_memslot, gfn_to_rmap, slot_by_id
from cython.cimports.shadowmmu.engine.mmu import create_mmus, guest_level, init_mmu, root_level
from cython.cimports.shadowmmu.engine.nested import NestedPaging, nested_enter, nested_exit
from cython.cimports.shadowmmu.engine.pages import is_obsolete
from cython.cimports.shadowmmu.engine.pte_list import PteListIter, pte_list_first, pte_list_next
from cython.cimports.shadowmmu.engine.registers import set_cr0, set_cr3, set_cr4, set_efer, set_sregs
from cython.cimports.shadowmmu.engine.requests import prepare_entry
from cython.cimports.shadowmmu.engine.slot_update import SlotResult, slot_create, slot_delete, slot_move, slot_set_flags
from cython.cimports.shadowmmu.engine.spte import set_masks
from cython.cimports.shadowmmu.engine.state import (
    ADDRESS_SPACES,
    MAX_SLOTS,
    PAGE_SHIFT,
    PAGE_SIZE,
    PREV_ROOTS,
    Errno,
    EventRecord,
    GuestException,
    Hpa,
    HvaFlag,
    Kvm,
    KvmMmu,
    MemSlot,
    PfRet,
    ShadowPage,
    SlotFlag,
    create,
    destroy,
    frame_pfn,
    gpa_t,
    host_pa,
    pfn_memory,
    spte_t,
    to_shadow_page,
    u64,
    u8,
)
from cython.cimports.shadowmmu.engine.tracking import write_emulated
from cython.cimports.shadowmmu.engine.walker import gva_to_gpa
from cython.cimports.shadowmmu.engine.zap import change_mmu_pages, unprotect_page, zap_all_fast
from cython.cimports.shadowmmu.x86.control import Cr0

from shadowmmu.engine import state as engine_state
from shadowmmu.engine.face import (
    Entry,
    GuestMemoryError,
    HostFault,
    MemslotError,
    OutOfPages,
    Outcome,
    PageFaultException,
    ShadowPageView,
    TripleFault,
)

ROOT_DESIGNS = ("special", "legacy")
_OUTCOMES = {int(outcome): outcome for outcome in Outcome}
_VM_COUNTERS = (
    "mmu_shadow_zapped", "mmu_pte_write", "mmu_pde_zapped", "mmu_flooded", "mmu_recycled", "mmu_cache_miss",
    "mmu_unsync", "pages_4k", "pages_2m", "pages_1g", "nx_lpage_splits", "max_mmu_rmap_size",
    "max_mmu_page_hash_collisions", "remote_tlb_flush", "remote_tlb_flush_requests", "special_allocated",
    "special_freed",
)  # fmt: skip
_VCPU_COUNTERS = (
    "pf_taken", "pf_fixed", "pf_emulate", "pf_spurious", "pf_fast", "pf_mmio_spte_created", "pf_guest", "tlb_flush",
    "invlpg",
)  # fmt: skip


@cython.cclass
class Vm:
    """A virtual machine's memory and shadow MMU.

    memory_mib    guest memory in one memslot at 0; 0 makes none
    vcpus         number of vCPUs
    roots         "special" or "legacy": how roots without a guest table are made
    host_levels   3, 4 or 5: levels of the host's own paging, which NPT shares
    tdp           run L1 on direct tables (nested paging on) instead of shadow paging
    vendor        "svm" or "vmx": reserved bits, and EPT when `tdp` is set
    maxphyaddr    the guest's physical address width, bits
    shadow_pages  limit of shadow pages; 0: the kernel's default, which follows the memory size
    table_pages   pool of shadow tables, the most that can ever exist; 0: enough for the default limit
    user_mib      host user memory that memslots can map; 0: as much as `memory_mib`
    max_huge_level, nx_huge_pages   the largest mapping (1-3), and whether huge ones may be executable (iTLB multihit)
    cr4_reserved  CR4 bits that the guest's CPUID does not offer: setting one is #GP
    """

    def __cinit__(
        self,
        *,
        memory_mib: int = 32,
        vcpus: int = 1,
        roots: str = "special",
        host_levels: int = 4,
        tdp: bool = False,
        vendor: str = "svm",
        maxphyaddr: int = 40,
        host_maxphyaddr: int = 46,
        shadow_pages: int = 0,
        table_pages: int = 0,
        user_mib: int = 0,
        max_huge_level: int = 3,
        nx_huge_pages: bool = False,
        cr4_reserved: int = 0,
    ):
        check_choice("roots", roots, ROOT_DESIGNS)
        check_choice("host_levels", host_levels, (3, 4, 5))
        check_choice("vendor", vendor, ("svm", "vmx"))
        check_range("vcpus", vcpus, 1, 64)
        check_range("memory_mib", memory_mib, 0, 1 << 16)
        check_range("maxphyaddr", maxphyaddr, 32, 51)
        config: Kvm
        memset(cython.address(config), 0, cython.sizeof(Kvm))
        config.nvcpus = vcpus
        config.special_roots = roots == "special"
        config.tdp = tdp
        config.vmx = vendor == "vmx"
        config.ept = tdp and vendor == "vmx"
        config.ept_ad = config.ept
        config.ept_exec_only = config.ept
        config.host_levels = host_levels
        config.maxphyaddr = maxphyaddr
        config.host_maxphyaddr = host_maxphyaddr
        config.max_huge_level = max_huge_level
        config.nx_huge_pages = nx_huge_pages
        config.cr4_reserved = cr4_reserved
        size_pools(cython.address(config), memory_mib, user_mib or memory_mib, table_pages or max(2 * shadow_pages, 0))
        self.kvm = create(cython.address(config))
        if self.kvm == cython.NULL:
            raise MemoryError(f"no memory for an arena of a VM with {memory_mib} MiB; ask for less memory_mib")
        self.roots = roots
        self.host_levels = host_levels
        set_masks(self.kvm)
        init_host_memory(self.kvm)
        self.kvm.n_requested_mmu_pages = shadow_pages
        self.kvm.n_max_mmu_pages = shadow_pages or self.kvm.npages_pool // 2
        self.vcpus = tuple([Vcpu(self, i) for i in range(vcpus)])
        if memory_mib:
            self.set_memslot(0, 0, memory_mib << 20)

    def __dealloc__(self):
        if self.kvm != cython.NULL:
            destroy(self.kvm)
        free(self.buffer)

    # --- memslots and memory

    @cython.cfunc
    def check_slot(self, result: cython.int, name: object) -> object:
        """Raise what a SlotResult other than OK means."""
        if result == SlotResult.SLOT_OVERLAPS:
            raise MemslotError(f"memslot {name} overlaps another one; delete or move that first")
        if result == SlotResult.SLOT_NO_ROOM:
            raise MemslotError(f"no room for memslot {name}: at most {MAX_SLOTS} slots; delete one first")
        if result == SlotResult.SLOT_UNKNOWN:
            raise MemslotError(f"memslot {name} does not exist; create it with a size first")
        return None

    def set_memslot(
        self,
        slot: int,
        gpa: int,
        size: int,
        hva: int | None = None,
        *,
        readonly: bool = False,
        log_dirty: bool = False,
        address_space: int = 0,
    ) -> None:
        """Create, move, re-flag or (size 0) delete a memslot, as KVM_SET_USER_MEMORY_REGION does.

        `hva` is the byte offset in the VM's host user memory, by default the same as `gpa`.
        """
        check_range("address_space", address_space, 0, ADDRESS_SPACES - 1)
        flags: int = (SlotFlag.SLOT_READONLY if readonly else 0) | (SlotFlag.SLOT_LOG_DIRTY if log_dirty else 0)
        if size == 0:
            self.check_slot(slot_delete(self.kvm, address_space, slot), slot)
            return
        base: int = gpa if hva is None else hva
        if (gpa | size | base) % PAGE_SIZE or gpa < 0 or size < 0 or base < 0:
            raise MemslotError(f"memslot {slot}: gpa, size and hva must be multiples of 4096, not {gpa:#x}, {size:#x}, {base:#x}")
        if base + size > self.kvm.nhva * PAGE_SIZE:
            raise MemslotError(
                f"memslot {slot} ends at user memory {base + size:#x}, of {self.kvm.nhva * PAGE_SIZE:#x}; make the VM with more user_mib"
            )
        old: cython.pointer(MemSlot) = slot_by_id(self.kvm, address_space, slot)
        if old == cython.NULL:
            self.check_slot(slot_create(self.kvm, address_space, slot, gpa >> 12, size >> 12, base >> 12, flags), slot)
        elif old.npages != size >> 12 or old.hva != base >> 12:
            raise MemslotError(f"memslot {slot} cannot change its size or memory; delete it (size 0) and create it anew")
        elif old.base_gfn != gpa >> 12:
            self.check_slot(slot_move(self.kvm, address_space, slot, gpa >> 12, flags), slot)
        elif old.flags != flags:
            self.check_slot(slot_set_flags(self.kvm, address_space, slot, flags), slot)

    def read_guest(self, gpa: int, size: int, address_space: int = 0) -> bytes:
        """Read guest physical memory; raises GuestMemoryError outside the memslots."""
        out = bytearray(size)
        view: cython.uchar[:] = out
        at: u64 = 0
        while at < size:
            part: u64 = min(size - at, PAGE_SIZE - (gpa + at) % PAGE_SIZE)
            if not read_guest(self.kvm, address_space, gpa + at, cython.address(view[at]), part):
                raise GuestMemoryError(f"no memory at guest physical {gpa + at:#x}")
            at += part
        return bytes(out)

    def write_guest(self, gpa: int, data: bytes, address_space: int = 0) -> None:
        """Store into guest physical memory behind the MMU's back, as a loader or the CPU's own store does."""
        view: cython.const[cython.uchar][:] = data
        size: u64 = len(data)
        at: u64 = 0
        while at < size:
            part: u64 = min(size - at, PAGE_SIZE - (gpa + at) % PAGE_SIZE)
            if not write_guest(self.kvm, address_space, gpa + at, cython.cast(cython.p_void, cython.address(view[at])), part):
                raise GuestMemoryError(f"no writable memory at guest physical {gpa + at:#x}")
            at += part

    def host_regions(self) -> list[tuple[int, int, int]]:
        """Host physical memory as (hpa, size, address in this process), for a CPU to be given."""
        low: int = self.kvm.low_frames * PAGE_SIZE
        base: int = cython.cast(u64, self.kvm.frames)
        return [(0, low, base), (Hpa.HIGH_ZONE, self.kvm.high_frames * PAGE_SIZE, base + low)]

    @cython.cfunc
    @cython.exceptval(check=False)
    def frame_memory(self, hpa: u64, size: u64) -> cython.pointer(u8):
        pfn: u64 = hpa >> PAGE_SHIFT
        good: cython.bint = pfn < self.kvm.low_frames or 0 <= pfn - (Hpa.HIGH_ZONE >> PAGE_SHIFT) < self.kvm.high_frames
        if not good or (hpa & (PAGE_SIZE - 1)) + size > PAGE_SIZE:
            return cython.NULL
        return pfn_memory(self.kvm, pfn) + (hpa & (PAGE_SIZE - 1))

    def read_host(self, hpa: int, size: int) -> bytes:
        """Read host physical memory within one page; raises GuestMemoryError where there is none."""
        at: cython.pointer(u8) = self.frame_memory(hpa, size)
        if at == cython.NULL:
            raise GuestMemoryError(f"no host memory at {hpa:#x}+{size}")
        return PyBytes_FromStringAndSize(cython.cast(cython.p_char, at), size)

    def write_host(self, hpa: int, data: bytes) -> None:
        """Store into host physical memory within one page, as hardware does when it sets A and D."""
        view: cython.const[cython.uchar][:] = data
        at: cython.pointer(u8) = self.frame_memory(hpa, len(data))
        if at == cython.NULL:
            raise GuestMemoryError(f"no host memory at {hpa:#x}+{len(data)}")
        memcpy(at, cython.address(view[0]), len(data))

    def read_host_u64(self, hpa: int) -> int:
        """One aligned 8-byte word of host memory, e.g. a shadow entry."""
        at: cython.pointer(u8) = self.frame_memory(hpa, 8)
        if at == cython.NULL:
            raise GuestMemoryError(f"no host memory at {hpa:#x}")
        return cython.cast(cython.pointer(u64), at)[0]

    def host_page(self, hva: int) -> int | None:
        """Host physical address of the frame that backs byte `hva` of user memory now; None if nothing does."""
        if not 0 <= hva < self.kvm.nhva * PAGE_SIZE:
            return None
        entry: u64 = self.kvm.hva_map[hva >> 12]
        return (entry >> PAGE_SHIFT) << PAGE_SHIFT if entry & HvaFlag.HVA_PRESENT else None

    def set_host_page_level(self, hva: int, size: int, level: int) -> None:
        """Back a range of user memory by host pages of `level` (1: 4K, 2: 2M, 3: 1G); aligned to that size."""
        check_range("level", level, 1, 3)
        self.check_hva(hva, size)
        page: u64
        end: u64 = (hva + size) >> 12
        for page in range(cython.cast(u64, hva >> 12), end):
            self.kvm.hva_map[page] = (self.kvm.hva_map[page] & ~cython.cast(u64, HvaFlag.HVA_LEVEL_MASK)) | level << HvaFlag.HVA_LEVEL_SHIFT

    def unmap_hva(self, hva: int, size: int) -> None:
        """The host gives the pages back (MADV_DONTNEED); the next read finds zeroes, the next write a new frame."""
        self.check_hva(hva, size)
        discard_hva_range(self.kvm, hva >> 12, (hva + size) >> 12)

    def write_protect_hva(self, hva: int, size: int, writable: bool = False) -> None:
        """The host changes its right to write the pages (mprotect)."""
        self.check_hva(hva, size)
        protect_hva_range(self.kvm, hva >> 12, (hva + size) >> 12, writable)

    def check_hva(self, hva: int, size: int) -> None:
        if (hva | size) % PAGE_SIZE or hva < 0 or size < 0 or hva + size > self.kvm.nhva * PAGE_SIZE:
            raise GuestMemoryError(f"user memory {hva:#x}+{size:#x} is not a page range below {self.kvm.nhva * PAGE_SIZE:#x}")

    def get_dirty_log(self, slot: int, address_space: int = 0) -> bytes:
        """The slot's dirty bitmap, one bit a page, cleared by the call; dirty pages are protected again."""
        found: cython.pointer(MemSlot) = slot_by_id(self.kvm, address_space, slot)
        if found == cython.NULL:
            raise MemslotError(f"memslot {slot} does not exist; create it with a size first")
        out = bytearray((found.npages + 63) // 64 * 8)
        view: cython.uchar[:] = out
        get_dirty_log(self.kvm, found, cython.cast(cython.pointer(u64), cython.address(view[0])))
        return bytes(out)

    # --- the MMU as a whole

    def zap_all_fast(self) -> None:
        """Zap every page by toggling the generation."""
        zap_all_fast(self.kvm)

    def unprotect_page(self, gfn: int) -> bool:
        """Stop shadowing the guest table at `gfn`; True if it was shadowed."""
        return unprotect_page(self.kvm, gfn)

    def set_shadow_pages(self, limit: int) -> None:
        """KVM_SET_NR_MMU_PAGES: at least 64."""
        check_range("limit", limit, 64, self.kvm.npages_pool)
        self.kvm.n_requested_mmu_pages = limit
        change_mmu_pages(self.kvm, limit)

    def arm_interleave(self, point: int, gpa: int, value: int, size: int) -> None:
        """Let another CPU store `value` at `gpa` when the next fault passes `point` (InterleavePoint), once."""
        self.kvm.interleave.point = point
        self.kvm.interleave.gpa = gpa
        self.kvm.interleave.value = value
        self.kvm.interleave.size = size

    @property
    def maxphyaddr(self) -> int:
        return self.kvm.maxphyaddr

    @property
    def host_maxphyaddr(self) -> int:
        return self.kvm.host_maxphyaddr

    @property
    def memory_size(self) -> int:
        """Bytes of guest memory in the memslots of address space 0."""
        return self.kvm.nr_memslot_pages * PAGE_SIZE

    @property
    def generation(self) -> int:
        """The one-bit generation of shadow pages."""
        return self.kvm.mmu_valid_gen

    def memslots(self) -> list[tuple[int, int, int, int, int, int]]:
        """(slot, address space, gpa, size, hva, flags) of each."""
        found = []
        for as_id in range(ADDRESS_SPACES):
            for i in range(MAX_SLOTS):
                slot: cython.pointer(MemSlot) = cython.address(self.kvm.slots[as_id][i])
                if slot.npages:
                    found.append((slot.id, as_id, slot.base_gfn << 12, slot.npages << 12, slot.hva << 12, slot.flags))
        return found

    def counters(self) -> dict[str, int]:
        """The debugfs counters by their kernel names; per-vCPU ones are summed."""
        vm_stats: cython.pointer(u64) = cython.cast(cython.pointer(u64), cython.address(self.kvm.stat))
        result: dict = {name: vm_stats[i] for i, name in enumerate(_VM_COUNTERS)}
        result.update(dict.fromkeys(_VCPU_COUNTERS, 0))
        i: cython.int
        for i in range(self.kvm.nvcpus):
            stats: cython.pointer(u64) = cython.cast(cython.pointer(u64), cython.address(self.kvm.vcpus[i].stat))
            for j, name in enumerate(_VCPU_COUNTERS):
                result[name] += stats[j]
        result["n_used_mmu_pages"] = self.kvm.n_used_mmu_pages
        result["n_max_mmu_pages"] = self.kvm.n_max_mmu_pages
        result["indirect_shadow_pages"] = self.kvm.indirect_shadow_pages
        return result

    def bugs(self) -> list[str]:
        """Names of the kernel's WARNs and BUGs that were hit; empty in a correct engine."""
        return [bug.name for bug in engine_state.Bug if self.kvm.bugs >> int(bug) & 1]

    # --- events

    def start_trace(self, capacity: int = 1 << 16) -> None:
        """Record events from now on, up to `capacity` between two calls of `records`."""
        free(self.buffer)
        self.buffer = cython.cast(cython.pointer(EventRecord), calloc(capacity, cython.sizeof(EventRecord)))
        if self.buffer == cython.NULL:
            raise MemoryError(f"no memory for {capacity} event records; ask for fewer")
        self.kvm.events = self.buffer
        self.kvm.max_events = capacity
        self.kvm.nevents = 0
        self.kvm.lost_events = 0

    def stop_trace(self) -> None:
        self.kvm.events = cython.NULL
        self.kvm.nevents = 0

    def records(self) -> list[tuple[int, int, int, int, int, int, int, int]]:
        """Events since the last call: (kind, vcpu or -1, six fields); kinds and fields as in `engine.events.Event`."""
        found = []
        i: u64
        for i in range(self.kvm.nevents):
            e: cython.pointer(EventRecord) = cython.address(self.kvm.events[i])
            vcpu: cython.int = -1 if e.vcpu == 0xFFFF else e.vcpu
            found.append((e.kind, vcpu, e.a[0], e.a[1], e.a[2], e.a[3], e.a[4], e.a[5]))
        self.kvm.nevents = 0
        return found

    @property
    def lost_events(self) -> int:
        """Events that found the buffer full."""
        return self.kvm.lost_events

    # --- looking at shadow pages

    @cython.cfunc
    def view(self, sp: cython.pointer(ShadowPage)) -> object:
        parents = []
        it: PteListIter
        sptep: cython.pointer(spte_t) = pte_list_first(sp.parent_ptes, cython.address(it))
        while sptep != cython.NULL:
            parents.append(host_pa(self.kvm, sptep))
            sptep = pte_list_next(cython.address(it))
        return ShadowPageView(
            host_pa(self.kvm, sp.spt), sp.gfn, sp.role, sp.root_count, bool(sp.unsync), sp.unsync_children,
            bool(sp.special), sp.owner, bool(is_obsolete(self.kvm, sp)), tuple(parents),
        )  # fmt: skip

    def shadow_pages(self) -> list[ShadowPageView]:
        """Every shadow page in existence, special ones and invalid roots included."""
        found = []
        i: u64
        for i in range(self.kvm.npages_pool):
            if self.kvm.pages[i].live:
                found.append(self.view(cython.address(self.kvm.pages[i])))
        return found

    def shadow_page(self, hpa: int) -> ShadowPageView | None:
        """The shadow page whose table holds the byte at `hpa`; None for bare tables and other memory."""
        if self.frame_memory(hpa, 1) == cython.NULL:
            return None
        sp: cython.pointer(ShadowPage) = to_shadow_page(self.kvm, hpa)
        return None if sp == cython.NULL else self.view(sp)

    def rmap(self, gpa: int, level: int = 1, address_space: int = 0) -> list[int]:
        """Host physical addresses of the entries of `level` that map guest address `gpa`."""
        slot: cython.pointer(MemSlot) = gfn_to_memslot(self.kvm, address_space, gpa >> 12)
        found = []
        if slot == cython.NULL:
            return found
        it: PteListIter
        sptep: cython.pointer(spte_t) = pte_list_first(gfn_to_rmap(slot, gpa >> 12, level)[0], cython.address(it))
        while sptep != cython.NULL:
            found.append(host_pa(self.kvm, sptep))
            sptep = pte_list_next(cython.address(it))
        return found

    # --- whole states

    def save(self) -> bytes:
        """The whole state as bytes, valid for `restore` on this VM."""
        return PyBytes_FromStringAndSize(cython.cast(cython.p_char, self.kvm), self.kvm.arena_size)

    def restore(self, state: bytes) -> None:
        """Go back to a state that `save` of this VM gave."""
        size: u64 = len(state)
        if size != self.kvm.arena_size:
            raise ValueError(f"a state of this VM has {self.kvm.arena_size} bytes, not {size}")
        events: cython.pointer(EventRecord) = self.kvm.events
        room: u64 = self.kvm.max_events
        memcpy(self.kvm, cython.cast(cython.p_char, state), self.kvm.arena_size)
        self.kvm.events = events
        self.kvm.max_events = room
        self.kvm.nevents = 0


@cython.cclass
class Vcpu:
    """One virtual CPU: its registers as far as paging needs them, and its MMU."""

    def __cinit__(self, vm: Vm, id: int):
        self.vm = vm
        self.id = id
        self.vcpu = cython.address(vm.kvm.vcpus[id])
        self.vcpu.kvm = vm.kvm
        self.vcpu.id = id
        self.vcpu.cr0 = Cr0.ET
        create_mmus(self.vcpu)
        init_mmu(self.vcpu)

    # --- registers

    def set_sregs(self, cr0: int, cr3: int, cr4: int, efer: int) -> bool:
        """Take all paging registers at once, as KVM_SET_SREGS does; False if a PAE CR3 has bad PDPTEs."""
        return set_sregs(self.vcpu, cr0, cr3, cr4, efer)

    def set_cr0(self, value: int) -> bool:
        """Write CR0; False: the CPU raises #GP(0) and nothing has changed. So for the other registers."""
        return set_cr0(self.vcpu, value)

    def set_cr3(self, value: int) -> bool:
        return set_cr3(self.vcpu, value)

    def set_cr4(self, value: int) -> bool:
        return set_cr4(self.vcpu, value)

    def set_efer(self, value: int) -> bool:
        return set_efer(self.vcpu, value)

    @property
    def cr0(self) -> int:
        return self.vcpu.cr0

    @property
    def cr2(self) -> int:
        return self.vcpu.cr2

    @cr2.setter
    def cr2(self, value: int):
        self.vcpu.cr2 = value

    @property
    def cr3(self) -> int:
        return self.vcpu.cr3

    @cr3.setter
    def cr3(self, value: int):
        """The hardware wrote CR3 without an exit, as it may with nested paging: the MMU is not told (svm_cache_reg)."""
        self.vcpu.cr3 = value

    @property
    def cr4(self) -> int:
        return self.vcpu.cr4

    @property
    def efer(self) -> int:
        return self.vcpu.efer

    @property
    def pkru(self) -> int:
        return self.vcpu.pkru

    @pkru.setter
    def pkru(self, value: int):
        self.vcpu.pkru = value

    @property
    def ac(self) -> bool:
        """EFLAGS.AC of the guest, which lifts SMAP."""
        return bool(self.vcpu.ac)

    @ac.setter
    def ac(self, value: bool):
        self.vcpu.ac = value

    @property
    def pdptrs(self) -> tuple[int, int, int, int]:
        """The PDPTE registers."""
        p: cython.pointer(u64) = self.vcpu.walk_mmu.pdptrs
        return (p[0], p[1], p[2], p[3])

    # --- running

    def enter(self) -> Entry:
        """Serve pending requests and have a root: call before every guest entry.

        Raises TripleFault if CR3 leads outside memory, OutOfPages if no root can be made.
        """
        result: cython.int = prepare_entry(self.vcpu)
        if result == 1:
            raise TripleFault(f"vCPU {self.id}: CR3 {self.vcpu.cr3:#x} leads outside guest memory")
        if result < 0:
            raise OutOfPages(f"vCPU {self.id}: no shadow page for a root; raise shadow_pages")
        gvas: tuple = ()
        if self.vcpu.flush_gva_count:
            gvas = tuple([self.vcpu.flush_gva[i] for i in range(self.vcpu.flush_gva_count)])
        entry = Entry(self.vcpu.mmu.root.hpa, root_level(self.vcpu.mmu), bool(self.vcpu.flush_hw_all), gvas)
        self.vcpu.flush_hw_all = False
        self.vcpu.flush_gva_count = 0
        return entry

    def page_fault(self, gva: int, error_code: int) -> Outcome:
        """Handle a #PF exit (or a nested page fault: then a guest physical address) with its error code."""
        result: cython.int
        address: u64 = gva
        code: u64 = error_code
        result = mmu_page_fault(self.vcpu, address, code)
        if result < 0:
            raise_fault(self.id, gva, result)
        return _OUTCOMES[result]

    def touch_range(self, gva: int, count: int, step: int, error_code: int) -> int:
        """Handle `count` page faults at addresses `step` bytes apart, without Python in between; how many were FIXED."""
        address: u64 = gva
        stride: u64 = step
        code: u64 = error_code
        number: u64 = count
        fixed: u64 = 0
        i: u64
        with cython.nogil:
            for i in range(number):
                if mmu_page_fault(self.vcpu, address + i * stride, code) == PfRet.RET_PF_FIXED:
                    fixed += 1
        return fixed

    @property
    def exception(self) -> PageFaultException | None:
        """The fault to deliver after INJECT, or after `gva_to_gpa` gave None."""
        e: cython.pointer(GuestException) = cython.address(self.vcpu.exception)
        if not e.pending:
            return None
        return PageFaultException(14, e.error_code, e.address, bool(e.nested_page_fault), e.exit_qualification)

    def invlpg(self, gva: int) -> None:
        """The guest executed INVLPG."""
        kvm_invlpg(self.vcpu, gva)

    # --- nesting

    def nested_vmrun(self, cr0: int, cr3: int, cr4: int, efer: int, ncr3: int | None = None) -> bool:
        """L1 executed VMRUN for an L2 with these registers, on the NPT at `ncr3` (None: nested paging off).

        False: an illegal L2 state, L1 gets VMEXIT_INVALID (call `nested_vmexit`).
        """
        paging: NestedPaging = NestedPaging.NESTED_NONE if ncr3 is None else NestedPaging.NESTED_NPT
        return nested_enter(self.vcpu, cr0, cr3, cr4, efer, paging, ncr3 or 0, False, 3)

    def nested_vmentry(self, cr0: int, cr3: int, cr4: int, efer: int, eptp: int, *, exec_only: bool = True, huge_level: int = 3) -> bool:
        """L1 executed VMLAUNCH or VMRESUME with EPT at `eptp`; `exec_only` and `huge_level` are what L1 was promised."""
        return nested_enter(self.vcpu, cr0, cr3, cr4, efer, NestedPaging.NESTED_EPT, eptp, exec_only, huge_level)

    def nested_vmexit(self) -> bool:
        """Back to L1 with the registers it had at entry; False: its CR3 has become illegal, L1 shuts down."""
        return nested_exit(self.vcpu)

    @property
    def guest_mode(self) -> bool:
        """L2 is running."""
        return bool(self.vcpu.nested.guest_mode)

    # --- for an emulator

    def gva_to_gpa(self, gva: int, access: int) -> int | None:
        """Translate as an access (Pferr WRITE, USER, FETCH bits) would; None: `exception` says why it faults.

        Sets A and D in the guest's tables, as the CPU does.
        """
        gpa: gpa_t = gva_to_gpa(self.vcpu, self.vcpu.walk_mmu, gva, access, cython.address(self.vcpu.exception))
        if gpa == Hpa.INVALID_PAGE:
            self.vcpu.exception.pending = True
            return None
        return gpa

    def inject(self) -> None:
        """The fault that `gva_to_gpa` reported goes to the guest: drop the shadow of that address first."""
        fault: GuestException = self.vcpu.exception
        inject_page_fault(self.vcpu, cython.address(fault))

    def read_emulated(self, gpa: int, size: int) -> bytes | None:
        """Read within one page; None: no memory there (MMIO)."""
        data: cython.uchar[64]
        if size > 64 or not read_guest(self.vcpu.kvm, self.vcpu.smm, gpa, data, size):
            return None
        return PyBytes_FromStringAndSize(cython.cast(cython.p_char, data), size)

    def write_emulated(self, gpa: int, data: bytes) -> bool:
        """Store within one page and let shadowed tables follow; False: no writable memory there (MMIO)."""
        view: cython.const[cython.uchar][:] = data
        return write_emulated(self.vcpu, gpa, cython.cast(cython.pointer(u8), cython.address(view[0])), len(data))

    # --- looking at the MMU

    @property
    def root(self) -> int | None:
        """Host physical address of the loaded root; None while there is none."""
        return None if self.vcpu.mmu.root.hpa == Hpa.INVALID_PAGE else self.vcpu.mmu.root.hpa

    @property
    def prev_roots(self) -> tuple[tuple[int, int], ...]:
        """(CR3, host physical address) of the cached roots."""
        m: cython.pointer(KvmMmu) = self.vcpu.mmu
        return tuple([(m.prev_roots[i].pgd, m.prev_roots[i].hpa) for i in range(PREV_ROOTS) if m.prev_roots[i].hpa != Hpa.INVALID_PAGE])

    @property
    def levels(self) -> tuple[int, int]:
        """(levels of the guest's tables, levels of the shadow tables)."""
        return (guest_level(self.vcpu.mmu), root_level(self.vcpu.mmu))

    @property
    def root_role(self) -> int:
        return self.vcpu.mmu.root_role

    @property
    def requests(self) -> int:
        """Pending requests, as `engine.state.Request` bits."""
        return self.vcpu.requests


# --- helpers


def check_choice(name: str, value: object, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(map(repr, choices))}")


def check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie between {low} and {high}")


def raise_fault(vcpu: int, gva: int, result: int) -> None:
    """Turn a negative errno of the fault path into its exception."""
    if result == -int(Errno.EFAULT):
        raise HostFault(f"vCPU {vcpu}: the host cannot give the page behind {gva:#x}")
    if result == -int(Errno.EINVAL):
        raise HostFault(f"vCPU {vcpu}: an entry on the path of {gva:#x} has reserved bits")
    raise OutOfPages(f"vCPU {vcpu}: no shadow page left for the fault at {gva:#x}; raise shadow_pages")


@cython.cfunc
def size_pools(config: cython.pointer(Kvm), memory_mib: object, user_mib: object, table_pages: object) -> object:
    """How many frames, shadow pages and descriptors a VM of this size needs."""
    pages: int = memory_mib << 8
    config.nhva = user_mib << 8
    config.user_frames = config.nhva + 64
    config.npages_pool = table_pages or 2 * max(pages // 50, 64) + 8 * config.nvcpus + 64
    config.ndesc = config.nhva + 32 * config.npages_pool + 256
    config.low_frames = 1 + 2 * config.nvcpus
    config.user_base = config.low_frames
    config.table_base = config.user_base + config.user_frames
    config.high_frames = config.user_frames + config.npages_pool + 3 * config.nvcpus
    config.meta_size = config.nhva * 32 + (1 << 16)
    return None


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def init_host_memory(kvm: cython.pointer(Kvm)) -> cython.void:
    """Map user memory to consecutive 4K frames, writable; what is left is the ring of spare frames."""
    i: u64
    for i in range(kvm.nhva):
        pfn: u64 = frame_pfn(kvm, kvm.user_base + i)
        kvm.hva_map[i] = pfn << PAGE_SHIFT | HvaFlag.HVA_PRESENT | HvaFlag.HVA_WRITABLE | 1 << HvaFlag.HVA_LEVEL_SHIFT
    # The frame behind user memory holds the shared zeroes.
    first: u64 = kvm.nhva + 1
    for i in range(first, kvm.user_frames):
        kvm.user_free[i - first] = kvm.user_base + i
    kvm.user_free_count = kvm.user_frames - first
    kvm.memslot_gen[1] = 1
