// All tests that serve whole disks: one after the other, because each keeps several threads busy.

internal import Testing

@Suite(.serialized, .timeLimit(.minutes(5)))
enum SimulatedDiskTests {}
