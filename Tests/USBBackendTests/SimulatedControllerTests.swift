// All that plays a whole machine with USB controllers: one after the other, as each has several threads.

internal import Testing

@Suite(.serialized, .timeLimit(.minutes(5)))
enum SimulatedControllerTests {}
