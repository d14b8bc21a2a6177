# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.machine.seam import State
from shadowmmu.machine.vcpu.svm_state import SvmState

def syscall(svm: SvmState, state: State) -> State | None: ...
