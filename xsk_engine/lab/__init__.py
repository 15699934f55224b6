"""The laboratory: two network namespaces joined by a veth pair, or by a wire that stands in a third one and
loses, doubles, reorders, corrupts and delays packets.

:mod:`.topology` builds the pairs, :mod:`.namespaces` makes and enters namespaces, :mod:`.named` keeps
laboratories that have a name (root), :mod:`.private` makes one for a single command (anybody),
:mod:`.adoption` one of two interfaces that were there before. A wire is what :mod:`.wirespec` says,
:mod:`.forwarder` runs it, and it counts in a :mod:`.wirepage`.
"""
