"""The laboratory: two network namespaces joined by a veth pair.

:mod:`.topology` builds the pair, :mod:`.namespaces` makes and enters namespaces, :mod:`.named` keeps
laboratories that have a name (root), :mod:`.private` makes one for a single command (anybody).
"""
