# SPDX-License-Identifier: GPL-2.0-only
"""What is told of one vCPU while it runs, in order with what its MMU does. It is not asked anything."""

from shadowmmu.machine.seam import Exit
from shadowmmu.machine.vcpu.pending import Pending


class Witness:
    """Hears all and does nothing; who wants to know has a witness of its own."""

    def entered(self) -> None:
        """Requests were served and a root is loaded: the CPU may run. In the course of a delivery, too."""

    def exited(self, exit_: Exit) -> None:
        """The guest has exited; neither L1 nor a handler has seen the exit yet."""

    def emulates(self, address: int) -> None:
        """The instruction at RIP is to be emulated, for its access to `address`."""

    def delivers(self, pending: Pending) -> None:
        """An event goes to the guest, requests having been served."""

    def delivery_faults(self, gva: int, code: int) -> None:
        """The CPU leaves the guest in the midst of a delivery, by a #PF of the shadow tables."""

    def delivers_again(self, pending: Pending) -> None:
        """The guest is entered with the same event again, once that is mended."""

    def shuts_down(self, at_entry: bool) -> None:
        """The guest can go on no longer: the CPU has found it, or KVM on the way into the guest."""

    def leaves_l2(self, code: int, info_1: int, info_2: int) -> None:
        """A #VMEXIT to L1 begins."""

    def left_l2(self) -> None:
        """L1's registers are back."""
