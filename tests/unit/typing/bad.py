# SPDX-License-Identifier: GPL-2.0-only
"""What a type checker must refuse: every line that ends in `# wrong`, and no other."""

from shadowmmu import Outcome, Vm
from shadowmmu.check.audit import audit
from shadowmmu.engine.arena.role import Role
from shadowmmu.x86.control import Cr0

vm = Vm(memory_mib=8)
vcpu = vm.vcpus[0]
Vm(8)  # wrong
Vm(memory="8")  # wrong
Vm(memory_mib="8")  # wrong
vm.no_such_thing(1)  # wrong
vm.read_guest(0x1000)  # wrong
vm.write_guest(0x1000, 7)  # wrong
vm.tdp = True  # wrong
vm.host_address(0x1000) + 1  # wrong
vm.memslots()[0].flags  # wrong
vm.records()[0].gfn  # wrong
vcpu.page_fault(0x1000)  # wrong
vcpu.page_fault("0x1000", 0)  # wrong
vcpu.enter().cr3  # wrong
vcpu.exception.error_code  # wrong
vcpu.cr0 = 1  # wrong
vcpu.set_cr0(None)  # wrong
vcpu.nested_vmentry(1, 0, 0, 0, 0, False)  # wrong
Outcome.FINE  # wrong
Role.LEVELS  # wrong
Cr0.PAGING  # wrong
audit(vcpu)  # wrong
audit(vm)[0].rule  # wrong


class Mine(Vm):  # wrong
    pass
