from shadowmmu.engine.state cimport Kvm, ShadowPage, u64

cdef list entries_of(Kvm *kvm, u64 head)
cdef object view_page(Kvm *kvm, ShadowPage *sp)
